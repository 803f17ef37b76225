"""Between server and nodes: a grid in this process, and one that counts bytes on any grid."""
