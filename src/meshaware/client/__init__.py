"""
httpx and httpx2 clients that keep the mesh's budgets and carry its headers.

    options     what one call may ask for
    allowance   budget and `timeout=` become seconds for each phase and for the whole (pure)
    call        one call under way: its clock, its phase, its end
    outgoing    the request as it leaves: route, host policy, headers
    transport   the wrapping transports, one for both libraries
    report      what became of a call
    library     what the two libraries name differently
    tls         contexts shared between like clients
    httpx, httpx2   the factories; the only files that import a client library
"""
