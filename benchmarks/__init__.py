"""What sbrpc and its emulator cost, measured side by side with what people use instead."""
