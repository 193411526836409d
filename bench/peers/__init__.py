"""What bench/peers.py is made of: pycoll and its peers measured in one run, in turn."""
