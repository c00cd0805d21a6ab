"""Where bytes are kept: the bucket for good, the spool for the next actor.

    bucket          objects are created, listed, copied and deleted
    small_uploads   creates small objects without Google's library
    object_urls     public and signed URLs
    google_client   credentials and connections
    bucket_errors   what the library raises, as errors of the service

    spool           files that wait for the next actor, and how many bytes they take
    replica_folder  where they are: a folder for each process, locked while it lives

Only this package knows Google's library.
"""
