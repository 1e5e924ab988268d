//! Where an upstream may be: the egress rules on URLs and addresses.
