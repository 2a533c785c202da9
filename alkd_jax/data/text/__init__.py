"""Text files read line by line: bounded, decoded, with every bad row counted."""
