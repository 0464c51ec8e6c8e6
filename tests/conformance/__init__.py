"""What a Service Bus namespace promises, checked from outside with the SDKs that applications use."""
