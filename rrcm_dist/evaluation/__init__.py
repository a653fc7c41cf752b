"""What trained networks make of images: representations, and answers by neighbours, a linear probe or a head."""
