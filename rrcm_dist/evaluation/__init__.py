"""What trained networks make of held-out images: representations, and how well neighbours, a probe or a head tell."""
