"""Ray as the crew: a Ray of one's own or a cluster, actors that count, and how it is noticed that they are gone."""
