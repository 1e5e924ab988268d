//! Tokens to money: integer pico-dollars, rounding stated.
