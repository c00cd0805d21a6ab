"""The bodies and queries of the HTTP calls; the OpenAPI document is generated from them."""
