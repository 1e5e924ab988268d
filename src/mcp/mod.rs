//! The Model Context Protocol on the wire. Filled in by the MCP issue.
