"""What several test rooms share: real peers, the table of laws."""
