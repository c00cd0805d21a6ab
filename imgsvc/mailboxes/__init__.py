"""Redis: the actors' mailboxes, and what replicas tell each other.

``Mailboxes`` holds the parts, and callers reach each by its name:

    streams       deal work and pass it on; which work is in flight
    delayed       what waits until it is due
    dead_letters  what cannot be done
    replicas      heartbeats; taking back what a lost replica held
    limits        what a client may have in a period
    bell          wakes the dealer
    lead          which replica deals, and which erases
    server        whether this Redis will do
    readers       connections for blocking reads; ``inbox(...)`` gives the reading end of a mailbox

``Origins`` and ``Traffic`` stand beside them, over the same scripts. Each script that moves a
message acts only if the message was still pending, so a message is in exactly one mailbox.
"""
