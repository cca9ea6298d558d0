"""Every bound in HAIF: its name carries the unit, its comment the reason.

A room reads its bounds from here, so that an operator finds all of them in one place.
"""

from __future__ import annotations

from typing import Final

# --- codecs -----------------------------------------------------------------------------------------------------------
MESSAGE_BYTES_MAX: Final = 1 << 20  # one RPC message: a long prompt fits, a memory bomb does not
MESSAGE_DEPTH_MAX: Final = 8  # nesting of a decoded message; ours use 4
MESSAGE_ITEMS_MAX: Final = 4096  # elements of one array
MESSAGE_KEYS_MAX: Final = 64  # keys of one map
EVIDENCE_BYTES_MAX: Final = 64 << 10  # one COSE_Sign1; receipts take about 600 bytes

# --- time -------------------------------------------------------------------------------------------------------------
CLOCK_SKEW_MS: Final = 30_000  # how far two honest clocks may differ
LIVE_MESSAGE_TTL_MS: Final = 30_000  # a signed live message is acted upon within this, or not at all
NONCE_WINDOW_MESSAGES: Final = 1024  # how far signed messages of one sender may overtake one another
NONCE_WINDOW_SENDERS: Final = 65_536  # senders remembered; the least recent is forgotten first
HANDSHAKE_TIMES_REMEMBERED: Final = 65_536  # initiators whose latest handshake is known: more than come within the skew
CERTIFICATES_REMEMBERED_MAX: Final = 1024  # certificates verified, and responders' certificates kept for Noise IK
CERTIFICATE_TTL_MS: Final = 7 * 24 * 3600 * 1000  # a Noise static key is rotated weekly

# --- networks ---------------------------------------------------------------------------------------------------------
NETWORK_NAME_CHARS_MAX: Final = 64
NETWORK_ROOTS_MAX: Final = 4  # keys that decide who may take part
NETWORK_LISTS_MAX: Final = 16  # issuers whose lists of revocations are known: roots, and a dozen delegates
REVOCATIONS_MAX: Final = 1024  # entries of one list: 44 KiB, within one piece of evidence
LISTS_BYTES_MAX: Final = 900 << 10  # all lists of a network at once: 16 full ones, within one message
NETWORK_LOOK_SECONDS: Final = 1.0  # how often a node looks for new lists and certificates on disk, and at its sessions
REVOCATIONS_FRESH_MS: Final = 30 * 24 * 3600 * 1000  # an older list is said to be old: a newer one may be kept from us
ADMISSION_TTL_MS_MAX: Final = 400 * 24 * 3600 * 1000  # nobody is admitted for much longer than a year
ADMISSION_BYTES_MAX: Final = 1024  # a certificate with a delegation in it takes about 650
OWNER_CHARS_MAX: Final = 64  # whose machine it is, in a certificate
SEQUENCE_MAX: Final = (1 << 63) - 1  # what every database holds as an integer

# --- wire -------------------------------------------------------------------------------------------------------------
NOISE_MESSAGE_BYTES_MAX: Final = 65_535  # Noise specification, section 3
NOISE_PLAINTEXT_BYTES_MAX: Final = 65_519  # the same less the 16-byte tag
HANDSHAKE_SECONDS: Final = 3.0  # a peer that has not finished by then is dropped
DIAL_SECONDS: Final = 10.0  # reaching a peer, a second handshake and a puzzle included
HANDSHAKES_HALF_OPEN_MAX: Final = 256  # handshakes in progress at one listener
SESSIONS_MAX: Final = 1024  # open sessions at one listener
HANDSHAKE_PAYLOAD_BYTES_MAX: Final = 4096  # a certificate and a version; takes about 300
NOISE_PLAINTEXT_BYTES_SENT: Final = 16 << 10  # what we put into one: 0.9 of full speed, and no waiting for 64 KiB
FRAME_PAYLOAD_BYTES_SENT: Final = (16 << 10) - 7  # so that a full frame fills a Noise message
OUTGOING_BYTES_HIGH: Final = 256 << 10  # streams wait while this much is ready to leave
MESSAGE_OVERHEAD_BYTES: Final = 64  # what a message costs beyond its bytes, so that empty ones are not free
STREAM_CREDIT_BYTES: Final = 32 << 10  # unread bytes one stream may hold before its last message: 300 tokens
SESSION_CREDIT_BYTES: Final = 16 << 20  # the same of a session; 256 streams at twice theirs, so none stops another
TRAFFIC_WEIGHTS: Final = (
    32,
    16,
    1,
)  # shares of control, tokens and bulk where all three wait: tokens keep 94 % beside bulk
SOCKET_UNSENT_BYTES: Final = 128 << 10  # what the system may hold of ours unsent: tokens never wait behind more bulk
SOCKET_READ_BYTES: Final = 128 << 10  # taken from a socket at once: more is not faster, and the next one waits
METHOD_BYTES_MAX: Final = 64
PARAMETER_CHARACTERS_MAX: Final = 128  # of the path of a parameter that a peer refused
ERROR_MESSAGE_CHARACTERS_MAX: Final = 1024
SESSIONS_PER_PEER_MAX: Final = 8  # one peer cannot take all sessions of a listener
DRAIN_SECONDS: Final = 1.0  # running calls get this long when a node stops
STREAMS_PER_SESSION_MAX: Final = 256  # calls and streams one peer may have open with us
METADATA_KEYS_MAX: Final = 8  # traceparent, correlation id and a few more
METADATA_BYTES_MAX: Final = 1024  # all keys and values of one call together
CALL_SECONDS_MAX: Final = 600.0  # no deadline may be longer
KEEPALIVE_SECONDS: Final = 5.0  # an idle session is probed this often
SESSION_SILENCE_SECONDS: Final = 15.0  # a session without a byte for this long is closed
SESSION_RENEW_SECONDS: Final = 3600.0  # after this a session makes room for a new one, with fresh Diffie-Hellman keys
SESSION_SECONDS_MAX: Final = 4500.0  # an older session is refused by both sides
PATH_SECONDS: Final = 5.0  # a further path that is not answered by then is given up; the session stays where it is
PATH_FINISH_SECONDS: Final = 30.0  # leaving the old path may wait behind what is queued on it, and no longer
PATH_HELD_BYTES_MAX: Final = 512 << 10  # what may come on a new path before the old one is left: two reads
PATHS_PER_MINUTE_MAX: Final = 60  # moves one peer may ask for; a flapping network needs a few
REKEY_MESSAGES: Final = 1 << 16  # each direction rekeys after this many Noise messages
REKEY_BYTES: Final = 1 << 30  # or this many bytes
REKEY_SECONDS: Final = 600.0  # or this long
REJECT_BYTES_MAX: Final = 2048  # why a peer refused us: a reason and `ERROR_MESSAGE_CHARACTERS_MAX` of ASCII
GATE_SOURCE_PER_SECOND: Final = 20.0  # handshakes begun by one IP address (IPv6: one /64) without being asked to pay
GATE_SOURCE_BURST: Final = 5.0
GATE_SUBNET_PER_SECOND: Final = 50.0  # the same for one /24 (IPv6: /48)
GATE_SUBNET_BURST: Final = 20.0
GATE_TOTAL_PER_SECOND: Final = 400.0  # for everybody: about a third of a core
GATE_TOTAL_BURST: Final = 400.0
GATE_PAID_PER_SECOND: Final = 200.0  # handshakes beyond those, by dialers who solved a puzzle
GATE_PAID_BURST: Final = 200.0
GATE_SOURCES_MAX: Final = 16_384  # addresses and subnets whose budget is known; the least recent is forgotten first
PUZZLE_SECONDS: Final = 20.0  # a puzzle may be solved and redeemed within this
PUZZLE_BITS_MAX: Final = 20  # a million hashes, about a second: no dialler works harder
PUZZLE_TRIES_MAX: Final = 16 << 20  # one in nine million puzzles of 20 bits takes longer
PUZZLE_TRIES_AT_ONCE: Final = 4096  # between two looks at the event loop: about 4 ms
PUZZLES_SPENT_MAX: Final = 16_384  # redeemed puzzles remembered: more than can be paid within their time
PUZZLE_ROUNDS_MAX: Final = 2  # a dialler that was asked for more gives up

# --- relay ------------------------------------------------------------------------------------------------------------
RELAYS_MAX: Final = 3  # relays a peer keeps a place at, and announces
RELAY_RESERVATION_SECONDS: Final = 600.0  # a place at a relay lasts this long, and is renewed at half of it
RELAY_RESERVATIONS_MAX: Final = 1000  # each of them keeps a session, of which a listener has 1,024
RELAY_RESERVATIONS_PER_ADDRESS_MAX: Final = 16  # of peers behind one IP address (IPv6: one /64)
RELAY_CIRCUITS_MAX: Final = 1000  # two descriptors each
RELAY_CIRCUITS_PER_CALLER_MAX: Final = 64  # an orchestrator or gateway with many workers behind one relay
RELAY_CIRCUITS_PER_CALLEE_MAX: Final = 64  # a worker with many gateways
RELAY_CIRCUITS_PER_ADDRESS_MAX: Final = 128  # asked for from one IP address (IPv6: one /64)
RELAY_CONNECTS_PER_SECOND: Final = 2.0  # circuits one peer may ask for: each costs a call to another peer
RELAY_CONNECTS_BURST: Final = 32.0
RELAY_PAIRING_SECONDS: Final = 10.0  # both ends have dialled by then, or the circuit is given up
RELAY_IDLE_SECONDS: Final = 45.0  # three times the silence after which a session gives up: nobody is there any more
RELAY_CIRCUIT_SECONDS: Final = 4500  # no session lives longer
RELAY_CIRCUIT_BYTES: Final = 8 << 30  # an operator may allow less; a long answer has some 100 KB
RELAY_BYTES_PER_SECOND: Final = 8 << 20  # of one circuit, and of all circuits of one peer; an operator may allow less
RELAY_BURST_SECONDS: Final = 2.0  # what was not used for so long may be used at once
RELAY_BUFFER_BYTES: Final = 64 << 10  # held for an end that reads slowly, beyond one read of the other's socket
RELAY_EARLY_BYTES_MAX: Final = 64 << 10  # of an end that talks before the other has come
RELAY_LINGER_SECONDS: Final = 5.0  # what an end still has to read when the other has left is kept this long
RELAY_PEERS_REMEMBERED_MAX: Final = 4096  # peers whose use is metered; the least recent is forgotten first
RELAY_ARGUMENT_BYTES_MAX: Final = 256  # of the calls to and from a relay; the longest takes about 40
RELAY_LEAVE_SECONDS: Final = 10  # a relay that stops gives circuits this long to move elsewhere
RELAY_TICK_SECONDS: Final = 1.0  # how often it looks for circuits out of time
RELAY_INCOMING_MAX: Final = 32  # circuits a peer is answering through at once; more are refused
RELAY_INCOMING_PER_SECOND: Final = 20.0  # circuits a peer answers through one relay: each costs a handshake
RELAY_INCOMING_BURST: Final = 64.0  # all who were cut off by a restart of the relay come back at once
RELAY_RETRY_SECONDS: Final = 5.0  # until a relay that could not be reached is asked again

# --- DHT --------------------------------------------------------------------------------------------------------------
DATAGRAM_BYTES_MAX: Final = 1200  # below every MTU met in practice
WATCHES_MAX: Final = 256  # topics watched by one node; an orchestrator watches one for each of its models
WATCH_RECORDS_MAX: Final = 1024  # owners known at one watched topic
WATCH_HOLDERS: Final = 4  # holders asked to tell us at once: all of them lose or withhold a notice in vain
WATCH_HOLDERS_AMONG: Final = 10  # the nearest; whoever publishes stores at the nearest twenty
WATCH_RENEW_SECONDS: Final = 25.0  # our registrations are renewed this often, so that a NAT keeps its mapping too
WATCH_REGISTRATION_SECONDS: Final = 60.0  # a registration lapses after this: one lost renewal does no harm
WATCH_READ_SECONDS_MIN: Final = 4.0  # the closest set is read this soon after a read that brought what we had missed
WATCH_READ_SECONDS_ALONE: Final = 4.0  # and this often where nobody tells us anything
WATCH_READ_SECONDS_MAX: Final = 120.0  # and this rarely where notices bring everything
WATCH_HURRY_SECONDS: Final = 0.5  # between two reads that somebody here has reason to ask for
WATCHERS_MAX: Final = 1024  # registrations one node keeps for others
WATCHERS_PER_TOPIC_MAX: Final = 16  # so that one stored record makes no more datagrams than this
WATCHERS_PER_TOPIC_AND_SUBNET_MAX: Final = 4  # so that one network does not take all of them
NOTICES_PER_SECOND: Final = 4.0  # to one watcher of one topic; what is beyond, it reads
NOTICES_BURST: Final = 32.0  # half a topic may change at once
LAN_SECONDS: Final = 30.0  # a node says to its local network where it is this often
LAN_ALONE_SECONDS: Final = 5.0  # and this often while it knows nobody
LAN_BEACONS_PER_SECOND: Final = 5.0  # beacons of others looked at; 150 nodes say theirs in half a minute
LAN_BEACONS_BURST: Final = 50.0
DHT_UNHEARD_MAX: Final = 2  # nearer ones not heard from yet, for a write to begin with whoever answered
DHT_K: Final = 20  # contacts per bucket and per answer (Kademlia, Maymounkov and Mazieres 2002)
DHT_ALPHA: Final = 10  # requests in flight per lookup
RECORD_BODY_BYTES_MAX: Final = 790  # an offer takes about 620 bytes without its place, a certificate among them
DHT_GUIDES: Final = 3  # answers after which a lookup asks all of the k closest known at once
DHT_BETA: Final = 3  # nodes that gave the same newest record of an owner end the search for it
RECORD_TTL_MS_MAX: Final = 20 * 60 * 1000  # an announcement lives at most this long
VALUE_BYTES_MAX: Final = 720  # a value for others to read; with keys, signature, ticket and salt it fills a datagram
VALUE_SALT_BYTES_MAX: Final = 64  # what tells the mutable values of one owner apart
VALUE_TTL_MS_MAX: Final = 24 * 3600 * 1000  # a value lives at most this long unless it is put again
RECORDS_PER_TOPIC_MAX: Final = 64  # per store; the second half is given away against tickets
RECORDS_PER_SIGNER_MAX: Final = 8  # per store and signer: one peer cannot fill a store
RECORDS_STORED_MAX: Final = 16_384  # per store; the second half is given away against tickets
RECORDS_STORED_BYTES_MAX: Final = 16 << 20  # the same in bytes, with what the store itself takes for each
RECORD_OVERHEAD_BYTES: Final = 512  # of memory, for a record's place in a store: believed
TICKET_WINDOW_SECONDS: Final = 60.0  # a ticket is honoured for so long after the wait it was given for
TICKETS_HELD_MAX: Final = 1024  # tickets of our own that wait at other nodes; the least recent is forgotten first
TICKET_WAIT_SECONDS_MAX: Final = 1200.0  # of one ticket; who must wait longer gets another, with the time it waited
LOOKUP_QUERIES_MAX: Final = 400  # datagrams one lookup may cost
DHT_REPLACEMENTS_MAX: Final = 8  # verified contacts waiting for a place in a full bucket
DHT_FAILURES_MAX: Final = 2  # unanswered queries in a row after which a contact leaves the table
DHT_CHALLENGES_MAX: Final = 10  # strangers pinged at once because they asked us something
DHT_OPERATIONS_MAX: Final = 64  # lookups, reads and publications in progress at one node
DHT_EVENTS_MAX: Final = 4096  # events waiting for the driver; refusals beyond are counted, not queued
DHT_QUERY_BYTES_PADDED: Final = 400  # a first query is this long, so that a full reply is within the factor below
DHT_AMPLIFICATION_MAX: Final = 3  # bytes answered per byte asked while the address is unproven (as QUIC, RFC 9000 8.1)
DHT_TOKEN_SECONDS: Final = 300.0  # round-trip secrets rotate this often; the last two are honoured
DHT_RTO_SECONDS_FIRST: Final = 0.4  # before a peer's round trip is known
DHT_RTO_SECONDS_MIN: Final = 0.08  # a busy peer is not taken for a dead one
DHT_RTO_SECONDS_MAX: Final = 1.5  # one slow peer cannot hold up a lookup
DHT_DROP_RTOS: Final = 3.0  # a query resent after one timeout is given up after this many
DHT_ROUND_TRIPS_MAX: Final = 4096  # addresses whose round trip is remembered
DHT_ROUND_TRIPS_COMPARED: Final = 64  # first round trips that say what to expect of an unknown address
DHT_SIGNATURES_PER_SECOND: Final = 50.0  # replies signed for one /24 or /56
DHT_SIGNATURES_BURST: Final = 200.0
DHT_SIGNATURES_TOTAL_PER_SECOND: Final = 10_000.0  # for everybody: about 20 % of a core
DHT_SUBNETS_MAX: Final = 4096  # subnets whose budget is remembered; the least recent is forgotten first
DHT_IDS_CACHED: Final = 16_384  # hashes of peers and forms of addresses kept to save CPU
DHT_SELF_LOOKUP_SECONDS: Final = 300.0  # our neighbourhood is looked up this often while many contacts fail
DHT_SELF_LOOKUP_SECONDS_MAX: Final = 1800.0  # and this often otherwise; at 50 % churn an hour a fifth fails meanwhile
DHT_FAILING_SHARE: Final = 0.3  # of our queries may fail before upkeep becomes more frequent
DHT_BUCKET_REFRESH_PERIODS: Final = 4.0  # a bucket idle for so many of these periods is refreshed
DHT_RELAY_SECONDS: Final = 3600.0  # contacts verified longer ago are not passed on: a third of them would be gone
DHT_ALONE_RETRY_SECONDS: Final = 5.0  # a node without contacts asks its bootstrap addresses again
DHT_LOST_MAX: Final = 256  # contacts that fell silent and may be asked again; a table has about 150
DHT_LOST_SECONDS: Final = 24 * 3600.0  # for this long: a cut of a day heals by itself
DHT_LOST_ASKED: Final = 3  # of them, each time that we look around
DHT_JOIN_SECONDS: Final = 5.0  # joining fails if no bootstrap address answered by then
DHT_PER_NARROW_NETWORK_MAX: Final = 8  # contacts of one /24 or /48 in a routing table
DHT_PER_NARROW_NETWORK_AND_BUCKET_MAX: Final = 2  # the same in one bucket: a /24 is one party until shown otherwise
DHT_PER_WIDE_NETWORK_AND_BUCKET_MAX: Final = 3  # contacts of one /16 or /32 in one bucket
DHT_PER_NARROW_NETWORK_AND_REGION_MAX: Final = 2  # contacts of one /24 or /48 that a lookup asks in its region
DHT_REGION_FACTOR: Final = 1.25  # a value is looked for wherever this many times k nodes should be
DHT_DENSITY_FACTOR: Final = 4.0  # a neighbourhood this many times denser than expected is suspected of an eclipse
DHT_SHELL_CONTACTS: Final = 3  # then this many are asked at each doubling of the distance, whoever is closest
DHT_FENCE_REGIONS: Final = 4  # who stands within this many times the region's radius knows everybody in it
DHT_DRAWN_OF: Final = 8  # one in so many strangers who could only take another's place is pinged
DHT_SIBLINGS_MAX: Final = 1024  # contacts of a bucket within that distance of us, where k would let the oldest fill it
DHT_CROWD: Final = 64  # names in a region that are all asked; it should hold 25
DHT_CROWD_SHARE: Final = 0.25  # of more, this share: (1 - 0.25) ** 25 < 0.001 is the chance to miss every holder
DHT_CROWD_WRITE_MAX: Final = 300  # of more than so many, a write asks these: the rest of its queries is the way there
DHT_NAMES_SILENT_MAX: Final = 64  # unanswered names after which whoever names more must have named some who answer
DHT_CROWD_DENSITY: Final = 2.0  # so many times denser than expected is a crowd
DHT_WITNESSES_MIN: Final = 6  # asked at each doubling of the distance outside a crowded region
DHT_CROWD_NAMES_PER_WITNESS: Final = 30  # and one for so many names in it, as each names k of them
DHT_WITNESSES_MAX: Final = 16  # at most, and as many may fail to answer
DHT_FAULTS_MAX: Final = 3  # invalid records, replies or signatures after which a peer is barred
DHT_PENALTY_SECONDS: Final = 3600.0  # for this long
DHT_PENALTIES_MAX: Final = 4096  # culprits remembered
DHT_CONTACTS_KEPT_MAX: Final = 200  # verified contacts kept for the next start; a table has about 150
DHT_CONTACTS_KEPT_BYTES_MAX: Final = 200 * 51  # they are IPv6 at most
DHT_CONTACTS_SAVE_SECONDS: Final = 300.0  # they are written this often, and when a node stops
SIGHTINGS_MAX: Final = 64  # networks whose word for our address is remembered
SIGHTING_SECONDS: Final = 1200.0  # and for how long
SURVEY_CONTACTS: Final = 8  # contacts of different networks asked to dial back at once
SURVEY_SECONDS: Final = 2.0  # for their replies and for what they send aside
SURVEY_EVERY_SECONDS: Final = 1200.0  # how often a node asks how it is seen; sooner when its address changes
OBSERVERS_MIN: Final = 4  # networks that must have seen us before anything is concluded
DIALBACKS_MIN: Final = 3  # of those asked must have got through, and more than half of them
STEADY_SECONDS: Final = 1200.0  # a node that was OPEN at one address for this long may be relied upon
DIALBACK_PORT_MIN: Final = 1024  # what we send to a port where somebody else may listen never goes to a system's
NETWORK_SAMPLES_MIN: Final = 5  # lookups before their median is the estimate of the network's size
NETWORK_SAMPLES_MAX: Final = 256  # lookups remembered for it
NETWORK_SAMPLE_SECONDS: Final = 7200.0  # and for how long
NETWORK_NODES_UNCLAMPED: Final = 64  # a network may seem to grow to this at once; a region holds 25 nodes of it

# --- reach ------------------------------------------------------------------------------------------------------------
STAGGER_SECONDS: Final = 0.25  # between two addresses of one peer that are dialled (RFC 8305, section 5)
PLACE_BYTES_MAX: Final = 160  # of one announcement: two addresses and two relays of IPv4, or one of each of IPv6
CANDIDATES_MAX: Final = 4  # addresses of one peer that are dialled
REACH_BYTES_MAX: Final = 1024  # an argument of `reach.*`; a sealed sighting takes about 250 bytes
PUNCH_TRIES_MAX: Final = 3  # simultaneous opens for one session: 97.6 % of those that succeed do at the first
PUNCH_SECONDS: Final = 0.8  # for each: a round trip around the world and then some
PUNCH_PORTS_MAX: Final = 16  # meetings prepared at once
PUNCH_PORT_SECONDS: Final = 10.0  # and how long a port stays open for one
PUNCHES_PER_MINUTE_MAX: Final = 30  # dials to addresses that peers were seen at, over all peers
PUNCHES_PER_PEER_AND_MINUTE_MAX: Final = 6  # two meetings
MAPPING_LEASE_SECONDS: Final = 3600  # a router forgets a mapping of ours after this, unless it is renewed
MAPPING_RETRY_SECONDS: Final = 600.0  # a router that gave us none is asked again
NATPMP_TRIES_MAX: Final = 3  # requests to a router that may not speak the protocol
NATPMP_SECONDS_FIRST: Final = 0.25  # before the second one, then doubled (RFC 6886, section 3.1)
PUNCH_PEERS_MAX: Final = 1024  # peers whose budget is remembered; the least recent is forgotten first

# --- engine -----------------------------------------------------------------------------------------------------------
ENGINE_FRAME_BYTES_MAX: Final = 2 << 20  # one message between worker and engine child
ENGINE_START_SECONDS: Final = 60.0  # loading a model may take this long
ENGINE_CONTEXT_TOKENS_DEFAULT: Final = 4096  # per slot, for models trained for more: memory grows with it
ENGINE_SLOTS_MAX: Final = 64  # sequences in one batch
PREFILL_CHUNK_TOKENS: Final = 256  # prompt tokens of one step; fewer beside running streams (engine/pace.py)
PREFILL_CHUNK_TOKENS_MIN: Final = 8  # beside running streams, too: a long prompt must not crawl
PREFILL_SLOWDOWN: Final = 1.75  # beyond that, one prompt costs running streams at most so much more; 2 with jitter
JSON_SCHEMA_BYTES_MAX: Final = 64 << 10  # of one request; the largest published tool schemas have about 20 KB
SCHEMA_MULTIPLE_MAX: Final = 10_000  # least common multiple of `multipleOf`: 0.1 s of compiling; 100,000 take 2.4 s
JSON_DEPTH_MAX: Final = 32  # nesting of a tool's schema and of a call's arguments
TOOLS_MAX: Final = 128  # of one request; as OpenAI's API
TOOLS_BYTES_MAX: Final = 128 << 10  # names, descriptions and schemas of one request's tools
TOOL_NAME_CHARS_MAX: Final = 64  # as OpenAI's API
TOOL_CALLS_MAX: Final = 32  # calls of one answer, and of one message
TOOL_CALL_ID_CHARS_MAX: Final = 128  # of a call in a conversation; ours have nine, OpenAI's 29
TEMPLATE_SETTINGS_MAX: Final = 16  # `chat_template_kwargs`; published templates know up to three
TEMPLATE_SETTING_CHARS_MAX: Final = 64  # of one's name, and of its value
PREFIX_COPY_TOKENS_MIN: Final = 64  # copying the KV cells of a running answer costs about as much as computing these
STOP_STRINGS_MAX: Final = 4  # as OpenAI's API
STOP_STRING_BYTES_MAX: Final = 256
MESSAGES_PER_PROMPT_MAX: Final = 256
TEMPERATURE_MAX: Final = 2.0  # as OpenAI's API
PENALTY_MAX: Final = 2.0  # of presence and frequency, either way; as OpenAI's API
REPEAT_PENALTY_MAX: Final = 10.0  # and its inverse; beyond that only ever the same or never the same comes
LOGIT_BIAS_MAX: Final = 100.0  # either way; as OpenAI's API
LOGIT_BIASES_MAX: Final = 1024  # tokens of one request; as OpenAI's API
LOGPROBS_MAX: Final = 20  # alternatives shown for each token; as OpenAI's API
DRAFT_TOKENS_AHEAD: Final = 15  # drafted tokens computed in one go: with the one before, what the self-test covers
VOCABULARY_MAX: Final = 1 << 22  # token ids; the largest known vocabularies have 262,144
ENGINE_QUEUE_MAX: Final = 64  # requests waiting for a slot at one engine; beyond it: Overloaded
ENGINE_SILENCE_SECONDS: Final = 60.0  # a child that owes an answer, and says nothing for this long, is killed
ENGINE_LOOK_SECONDS: Final = 0.5  # how often a child is looked at
ENGINE_IDLE_SECONDS: Final = 5.0  # a child that answered all it was asked and computes on for this long is killed
ENGINE_CORES_SECONDS: Final = 5.0  # over which the cores that a child computes on are counted
ENGINE_STALL_SECONDS: Final = 3.0  # silent for this long, and for four times its longest step, it gets no new work
ENGINE_CLOSE_SECONDS: Final = 1.0  # a child that was asked to end gets this long, then it is killed
ENGINE_RESPAWN_SECONDS_MIN: Final = 0.1  # wait after a first death; doubled with each death that follows closely
ENGINE_RESPAWN_SECONDS_MAX: Final = 10.0
ENGINE_HEALTHY_SECONDS: Final = 30.0  # a child that lived this long ends a series of deaths
SANDBOX_LAYERS_MAX: Final = 32  # layers that a statement about a jail names; there are 14
SANDBOX_LAYER_CHARS_MAX: Final = 32  # the name of one
ENGINE_STDERR_BYTES_MAX: Final = 4096  # last words of a child that are kept to say why it died
ENGINE_TASKS_MAX: Final = 512  # processes and threads in the namespace of a child (RLIMIT_NPROC)
ENGINE_FILES_MAX: Final = 64  # open files of a child (RLIMIT_NOFILE); it needs about 10
ENGINE_GROWTH_BYTES_MAX: Final = 512 << 20  # memory a child may add after it loaded its model (RLIMIT_AS)
ENGINE_LOAD_BYTES_BASE: Final = (
    8 << 30
)  # address space a child may take to load, beyond three times the file (RLIMIT_AS)
ENGINE_RATE_SECONDS: Final = 5.0  # window of the tokens/s an engine reports
ENGINE_RATE_STEPS_MAX: Final = 4096  # steps remembered for that figure
TEMPLATE_BYTES_MAX: Final = 256 << 10  # source of a chat template; the longest published ones have about 20 KB
TEMPLATE_SECONDS_MAX: Final = 1.0  # rendering a prompt takes about a millisecond
PROMPT_BYTES_MAX: Final = 1 << 20  # a rendered prompt
EMBEDDING_INPUTS_MAX: Final = 2048  # texts of one request, or documents to rank; as OpenAI's API
EMBEDDING_TOKENS_MAX: Final = 300_000  # of all inputs of one request; as OpenAI's API
EMBEDDING_DIMENSIONS_MAX: Final = 8192  # of one vector; the largest known models have as many
EMBEDDING_BYTES_MAX: Final = 16 << 20  # of all vectors of one request: 2,048 of 2,048 dimensions
EMBEDDING_CONTEXT_TOKENS_DEFAULT: Final = 2048  # of one input: attention over n tokens takes memory for n times n
EMBEDDING_BATCH_INPUTS_MAX: Final = 32  # vectors of one batch: 1 MiB, within one message of the child
EMBEDDING_CHUNK_BYTES: Final = 64 << 10  # of vectors in one message to a gateway, or one vector
ENGINE_VECTOR_BYTES_MAX: Final = 128 << 20  # of vectors that one engine owes; beyond it: Overloaded
MODEL_TEXT_BYTES_MAX: Final = 128  # a name or another short text from a model's file
COMPLETION_TOKENS_UNSAID_MAX: Final = 4096  # of an answer that was given no limit: 120 s at 34 tokens a second
COMPLETION_TOKENS_MAX: Final = 32_768

# --- worker, orchestrator ---------------------------------------------------------------------------------------------
HEARTBEAT_SECONDS: Final = 5.0
HEARTBEAT_SILENCE_SECONDS: Final = 15.0  # a worker silent for this long gets no work
WORKER_QUEUE_MAX: Final = 64  # requests waiting at a worker beyond those in its slots
RESERVATION_TTL_MS: Final = 30_000  # a ticket is redeemed within this, or not at all
RESERVATIONS_REMEMBERED_MAX: Final = 65_536  # tickets a worker remembers having redeemed
ATTEMPTS_MAX: Final = 5  # workers tried for one job, over all of its stream
JOB_SECONDS_DEFAULT: Final = 120.0
JOBS_OPEN_MAX: Final = 10_000
WORKERS_MAX: Final = 10_000
JOBS_ENDED_REMEMBERED_MAX: Final = 4096  # ended jobs kept in memory; older ones are read from the journal
FINALISE_GRACE_MS: Final = 10_000  # an answer that came just in time may be reported this long after the deadline
REDEEM_MS: Final = 1000  # a ticket issued longer ago than this is part of the load its worker reports
REASON_CHARS_MAX: Final = 40  # why an attempt or a job failed: a `Reason`, or a word such as "cancelled"
HEARTBEAT_LOADS_MAX: Final = 64  # models one worker reports on
PREFIX_TAGS_MAX: Final = 8  # beginnings of one request that are named when it is placed
PREFIX_TAG_BYTES_MIN: Final = 256  # a shorter beginning is computed in no time anywhere
HOT_PREFIXES_MAX: Final = 64  # beginnings one worker says it computed for a model; eight requests
PREFIX_DEPTH: Final = 0.5  # a worker that has the whole beginning may be this much busier, in slots taken per slot
ORCHESTRATOR_TICK_SECONDS: Final = 1.0  # how often jobs out of time and silent workers are looked for

# --- gateway ----------------------------------------------------------------------------------------------------------
HTTP_BODY_BYTES_MAX: Final = 1 << 20
HTTP_HEADER_SECONDS: Final = 5.0
TENANT_REQUESTS_PER_MINUTE: Final = 600
TENANT_BURST_REQUESTS: Final = 60
TENANTS_MAX: Final = 10_000
GATEWAY_STREAMS_MAX: Final = 4096
SSE_KEEPALIVE_SECONDS: Final = 10.0
HTTP_BODY_SECONDS: Final = 15.0  # a body that has not arrived by then is answered with 408
HTTP_HEADER_BYTES_MAX: Final = 16 << 10  # request line and headers together
HTTP_DISCARD_BYTES_MAX: Final = 8 << 20  # of a refused body is read away before the connection is closed
HTTP_CONNECTIONS_MAX: Final = 8192  # open connections; more are closed at once
HTTP_KEEPALIVE_SECONDS: Final = 30  # an idle connection is kept this long
GATEWAY_DRAIN_SECONDS: Final = 0.5  # answers still running at a stop get this long, then an error
MODEL_NAME_CHARS_MAX: Final = 256  # a model's name in a request
TENANT_NAME_CHARS_MAX: Final = 64
TENANT_KEYS_MAX: Final = 20_000  # keys that are not revoked, over all tenants
TENANT_REFRESH_SECONDS: Final = 1.0  # how often the gateway looks for new and revoked keys
TENANT_STALE_SECONDS: Final = 4.0  # older knowledge of keys is refreshed before it is used: revocation within 5 s
MODELS_REFRESH_SECONDS: Final = 1.0  # how often the gateway asks what can be asked for
FIRST_TOKEN_SECONDS: Final = 60.0  # a worker that sent no token by then is given up: long prompts on slow machines
TOKEN_SECONDS: Final = 10.0  # and one that was silent for this long between two; another's prompt may take seconds
RETRY_SECONDS_FIRST: Final = 0.05  # before a third attempt, at most; doubled for each further one
RETRY_SECONDS_MAX: Final = 1.0
CONTROL_CALL_SECONDS: Final = 5.0  # a call to an orchestrator, and dialling a peer, take no longer
FAILURE_REPORTS_MAX: Final = 1024  # reports of failed jobs on their way to an orchestrator
GATEWAY_VECTOR_BYTES_MAX: Final = 512 << 20  # of vectors held for all tenants until their receipts are checked
CHOICES_MAX: Final = 8  # `n` of one request: each is a job of its own and counts as a request of its tenant
ANSWER_BYTES_PER_TOKEN_MAX: Final = 512  # text one token may stand for; vocabularies have runs of 128 spaces

# --- telemetry --------------------------------------------------------------------------------------------------------
SPANS_STORED_MAX: Final = 200_000  # the local span store forgets the oldest beyond this
SPAN_QUEUE_MAX: Final = 4096  # spans ended and not yet written; more are counted as lost, nobody waits
SPAN_WRITE_SECONDS: Final = 0.25  # a finished span is written within this
SPAN_ATTRIBUTES_MAX: Final = 32  # per span; ours set about ten
ATTRIBUTE_CHARS_MAX: Final = 256  # of one attribute's text; longer is cut
METRIC_SERIES_MAX: Final = 256  # series of one metric with open labels; beyond it their values become "other"
TRACES_PER_JOB_MAX: Final = 64  # traces read for one job: its own and those of its retries
SPANS_PER_TRACE_MAX: Final = 4096  # spans read of one trace
METRICS_REQUEST_BYTES_MAX: Final = 8192  # the head of one scrape request
METRICS_CONNECTIONS_MAX: Final = 16  # scrapers at once
METRICS_REQUEST_SECONDS: Final = 5.0  # a scraper that has not asked, or not read, by then is dropped
OTLP_SECONDS: Final = 5.0  # one export over OTLP, retries included
TELEMETRY_CLOSE_SECONDS: Final = 1.0  # a collector that does not take the last spans by then does not get them

# --- storage ----------------------------------------------------------------------------------------------------------
DATABASE_WRITES_WAITING_MAX: Final = 8192  # writes queued for the next commit; beyond this the caller is told to wait
DATABASE_WRITES_PER_COMMIT_MAX: Final = 1024  # one transaction; keeps a commit in the low milliseconds
DATABASE_READS_WAITING_MAX: Final = 1024  # reads queued behind one another; beyond this the caller is told to wait
DATABASE_BUSY_SECONDS: Final = 5.0  # how long a write waits for another process that is writing the same file
JOURNAL_ENTRY_BYTES_MAX: Final = 256 << 10  # one entry; two pieces of evidence fit
JOURNAL_PAGE_ENTRIES: Final = 512  # entries read at once

# --- proof ------------------------------------------------------------------------------------------------------------
TRANSCRIPT_WINDOW_TOKENS: Final = 32  # tokens of one leaf of a transcript: a digest a window is one byte a token
EVIDENCE_BETS_MAX: Final = 64  # begun at different audits of one worker and remembered: those that won most
