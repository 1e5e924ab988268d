//! Settings: the YAML file, the environment, the flags.
