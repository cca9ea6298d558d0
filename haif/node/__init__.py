"""The composition root: settings become services, each handed only what it may touch, and run until told to stop.

    run            one role until it is told to stop, and which file makes it
    orchestrator, worker, gateway, validator, relay    one role each, on the ground; no role's file knows another's
    ground         what every role stands on
    reached        how a node reaches others and is reached
    watch          what /metrics shows of the services' own statistics
    settings       what settings name: peers, relays, models, a place among the nodes

What is where, in the state folder:

    keys/<name>.key      the identity of an instance; keys/publisher.key signs the models added here
    networks/<name>/     what is known of a network: its keys' names, certificates, lists of revocations
    models/              the model store
    <name>/              an instance's databases (journal, tenants, spans) and its lock; a validator's convictions
    logs/                what the roles of `haif up` say
"""
