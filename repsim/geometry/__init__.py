"""RSA over recordings: RDMs in stacks, profiles and models; networks as points."""
