//! The roof: builds the floors bottom-up and takes them down again.
