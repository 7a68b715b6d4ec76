"""What frozen networks see in pictures: the numbers that KID, FID and their kin compare."""
