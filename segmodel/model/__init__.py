"""The network, one file a part of the paper (Sec. 2-5), its configuration, and its way to and from files."""
