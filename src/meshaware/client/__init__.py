"""
httpx and httpx2 clients that keep the mesh's budgets and carry its headers.

    options     what one call may ask for
    allowance   budget and `timeout=` become seconds for each phase and for the whole (pure)
    call        one call under way: its clock, its phase, its end
    outgoing    the request as it leaves: route, host policy, headers
    refusal     whether a connection was refused, under whatever wraps the error (pure)
    clamp       reads and writes that know how long the call still has
    streams     bodies that end with their call
    witness     sees what becomes of a call, for those who want to know
    transport   the wrapping transports, one for both libraries
    report      what became of a call
    library     what the two libraries name differently
    build       how a client is put together
    retries     who else retries: transports that are handed over
    repeats     ... and calls that are made again after they failed
    nested      the transports inside a transport
    fork        connections that this process must not use
    tls         contexts shared between like clients
    httpx, httpx2   the factories; the only files that import a client library
"""
