"""What the engine's live page shows besides the engine: looks at Kafka, the parameter server, Flink, health pages and the stack's state."""
