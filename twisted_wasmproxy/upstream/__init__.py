"""The way to origins: which server of a cluster, over which connection, or through which tunnel.

`upstreams` holds the `clusters` of a configuration; a cluster chooses a `server` (`balance`, `health`), and its `pool`
lends an idle connection or has one made (`dial`, with `resolve`, `access` and `tls`). `tunnel` connects for CONNECT.
"""
