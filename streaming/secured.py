"""What Flink's connectors are told of TLS and of who asks, without a secret in it.

A statement, and the plan made of it, travel to the cluster and may be shown. So Kafka's clients get the place of their JAAS line in a file
of secrets on each host, which Kafka's own FileConfigProvider reads (KIP-421). The registry's client can read its user from the JVM's login
configuration alone (SASL_INHERIT): `headrace connect secrets` writes that file too, and a TaskManager is started with it.
"""

from __future__ import annotations

from headrace.schemas.access import KAFKA_JAAS, Cluster, Registry

SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka"  # where flink-sql-connector-kafka has Kafka's classes
LOGIN_OPTION = "java.security.auth.login.config"


def connector(cluster: Cluster, more: dict[str, str]) -> dict[str, str]:
    """Properties of Kafka's Java clients for `cluster`, whose `secrets` is a file on Flink's hosts; `more` as they are."""
    found: dict[str, str] = {}
    if cluster.protocol != "PLAINTEXT":
        found["security.protocol"] = cluster.protocol
    if cluster.protocol.startswith("SASL"):
        found |= {"sasl.mechanism": cluster.mechanism, "config.providers": "file",
                  "config.providers.file.class": f"{SHADED}.common.config.provider.FileConfigProvider",
                  "sasl.jaas.config": f"${{file:{cluster.secrets}:{KAFKA_JAAS}}}"}
    if cluster.ca:
        found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": cluster.ca}
    if cluster.cert:
        found |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": cluster.cert}
    return found | more


def registry(reached: Registry, more: dict[str, str]) -> dict[str, str]:
    """Options of the format avro-confluent; `more` go to its client as they are."""
    found: dict[str, str] = {}
    if reached.username:
        found["basic-auth.credentials-source"] = "SASL_INHERIT"
    settings: dict[str, str] = {}
    if reached.ca:
        settings |= {"schema.registry.ssl.truststore.type": "PEM", "schema.registry.ssl.truststore.location": reached.ca}
    if reached.cert:
        settings |= {"schema.registry.ssl.keystore.type": "PEM", "schema.registry.ssl.keystore.location": reached.cert}
    return found | {f"properties.{name}": value for name, value in (settings | more).items()}
