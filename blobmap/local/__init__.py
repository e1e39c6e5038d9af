"""The embedded default: content in a directory, snapshots as copied trees, records in blobkv.

Nothing here needs privileges, a daemon, or a mount; with privileges, owners and devices are
kept too.
"""
