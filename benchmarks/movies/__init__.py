"""The movies over Service Bus and over HTTP, side by side: under load, in a burst, and when things break."""
