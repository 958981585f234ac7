//! Every bound of the system, named once. A bound without a name here does not exist.

use crate::domain::time::Millis;

/// Bytes of one event, in any encoding, after decompression.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a JSON request body, after decompression.
pub const JSON_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an NDJSON request body, after decompression.
pub const NDJSON_BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Bytes that all request bodies under way may hold together, unpacked: the default of `--body-memory`. A workspace gets half of it.
pub const BODY_MEMORY: usize = 128 * 1024 * 1024;
/// The least that it may be: a body and what it is packed in, twice.
pub const BODY_MEMORY_MIN: usize = 32 * 1024 * 1024;
/// Bytes of it for all requests that present no credential.
pub const ANONYMOUS_BODY_MEMORY: usize = 1024 * 1024;
/// How long a request waits for room in it.
pub const BODY_MEMORY_WAIT: Millis = Millis::seconds(1);
/// How long the body of a request without a credential may take to arrive.
pub const ANONYMOUS_BODY_TIMEOUT: Millis = Millis::seconds(5);
/// How many times what was sent a packed body may become, past [`CODING_RATIO_FROM`].
pub const CODING_RATIO_MAX: usize = 100;
/// Bytes up to which a packed body may be as dense as it likes.
pub const CODING_RATIO_FROM: usize = 1024 * 1024;
/// Codings that one request body may be packed with, one on top of the other; each is decoded within the byte limit.
pub const CONTENT_CODINGS_MAX: usize = 4;
/// Members of one gzip body: an empty one costs time and adds no byte to what is counted.
pub const GZIP_MEMBERS_MAX: usize = 16_384;
/// The window of a zstd body, as a power of two: 8 MiB, as HTTP has it (RFC 9659).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Lines of an NDJSON request body.
pub const NDJSON_LINES_MAX: usize = 10_000;
/// Events in one `/v1/events/batch` or JSON array request.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Dimensions that are kept of one event.
pub const DIMENSIONS_MAX: usize = 20;
/// Bytes of a dimension's name.
pub const DIMENSION_NAME_BYTES_MAX: usize = 64;
/// Characters that are kept of a dimension's text value.
pub const DIMENSION_VALUE_CHARS_MAX: usize = 256;
/// Names of dimensions that one warning about an event shows.
pub const WARNING_NAMES_SHOWN_MAX: usize = 5;
/// Bytes of an event id or source.
pub const EVENT_ID_BYTES_MAX: usize = 256;
/// Events in one frame of the journal.
pub const FRAME_EVENTS_MAX: usize = 16_384;
/// Bytes of one frame before compression.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one journal record.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a quarantined body that are kept.
pub const QUARANTINE_BYTES_MAX: usize = 64 * 1024;
/// Entries of the quarantine that a partition remembers of one tenant, the newest: copies of older ones begin anew.
pub const QUARANTINE_REMEMBERED_MAX: usize = 10_000;
/// Dimensions that a metric may be grouped by.
pub const GROUP_BY_MAX: usize = 3;
/// Distinct groups of one series up to engine version 2; later ones count in the group-less total alone.
pub const GROUPS_PER_SERIES_MAX: usize = 1_000;
/// Distinct groups of one series in one hour of event time; what comes for others counts in one group for all of them.
pub const GROUPS_PER_HOUR_MAX: usize = 1_000;
/// Groups of one series that are in memory, added up over the hours, past which hours that are over leave early.
pub const GROUPS_HELD_MAX: usize = 10_000;
/// How long the groups of an hour that is over stay in memory behind the last event that came for it.
pub const PAST_GROUPS_HELD: Millis = Millis::minutes(5);

/// Bytes of a rule's source.
pub const RULE_BYTES_MAX: usize = 512;
/// Nesting of a rule's parentheses and unary operators.
pub const RULE_DEPTH_MAX: usize = 32;
/// Nodes of a rule's tree.
pub const RULE_NODES_MAX: usize = 64;

/// How long after its end a window stays open for ordinary events.
pub const GRACE: Millis = Millis::seconds(30);
/// The longest grace: levels of the hour before are kept until the one that holds the clock ends.
pub const GRACE_MAX: Millis = Millis::minutes(55);
/// How old an event may be when it is accepted.
pub const LATENESS_HORIZON: Millis = Millis::hours(48);
/// How long an event's identity is remembered.
pub const DEDUP_HORIZON: Millis = Millis::hours(49);
/// How long a closed window stays in memory, so that a late event can overturn what it decided.
pub const CORRECTION_HORIZON: Millis = Millis::hours(1);
/// How far a clock may be put forward at once and still be believed, and how far a fold's clock may be ahead of a node's unremarked.
pub const CLOCK_STEP_MAX: Millis = Millis::minutes(10);
/// How long a clock that was put further forward must keep its new offset until it is believed.
pub const CLOCK_KEPT_FOR: Millis = Millis::minutes(2);
/// Bytes of what one record restores when a clock is set.
pub const REPAIR_PART_BYTES: usize = 4 * 1024 * 1024;
/// How far ahead of the clock an event may be.
pub const AHEAD_MAX: Millis = Millis::minutes(5);
/// A deadline handled later than this is stale: stored, not sent singly.
pub const STALE_AFTER: Millis = Millis::minutes(15);
/// How long a partition that takes nothing in waits to record that time passed; bounds the age of `as_of`.
pub const TICK_EVERY: Millis = Millis::seconds(30);
/// The least time between two ticks of one partition.
pub const TICK_SPACING: Millis = Millis::milliseconds(100);
/// How often snapshots are taken of partitions that moved.
pub const SNAPSHOT_EVERY: Millis = Millis::minutes(1);
/// How long a caller is asked to wait where the disk takes nothing.
pub const STORAGE_RETRY_SECONDS: u32 = 5;
/// Rows that are read at once where an answer may not show all of them.
pub const LOOKED_AT_ONCE: usize = 500;
/// Rows that are looked at for one page of an answer that may not show all of them.
pub const LOOKED_AT_MAX: usize = 50_000;
/// How far a node may be behind the control log and still say that it can accept.
pub const CONTROL_LAG_RECORDS_MAX: u64 = 1_000;
/// How many records of the control log make another snapshot of the control plane worth its while.
pub const CONTROL_SNAPSHOT_RECORDS: u64 = 1_000;
/// Snapshots that are kept of a partition, and of the control plane.
pub const SNAPSHOTS_KEPT: usize = 3;
/// The default repeat interval of alerts that read no quota.
pub const REPEAT_INTERVAL: Millis = Millis::hours(4);

/// Channels that one alert may name.
pub const CHANNELS_PER_ALERT_MAX: usize = 10;
/// Alerts of one tenant.
pub const ALERTS_MAX: usize = 10_000;
/// Silences of one tenant; of more, the one that ended first is forgotten.
pub const SILENCES_MAX: usize = 2_000;
/// Matchers of one silence.
pub const MATCHERS_MAX: usize = 20;
/// Characters of a matcher's value.
pub const MATCHER_CHARS_MAX: usize = 256;
/// Bytes of a matcher's compiled regular expression.
pub const MATCHER_BYTES_MAX: usize = 64 * 1024;
/// Acknowledgements of one tenant that are remembered; of more, the oldest is forgotten.
pub const ACKNOWLEDGEMENTS_MAX: usize = 20_000;
/// Test messages of one tenant within [`TESTS_SPAN`], counted by destination.
pub const TESTS_MAX: usize = 100;
/// The span in which test messages are counted.
pub const TESTS_SPAN: Millis = Millis::hours(1);
/// How long a request may wait for what becomes of a test message.
pub const TEST_WAIT_MAX: Millis = Millis::seconds(20);
/// Channels of one tenant.
pub const CHANNELS_MAX: usize = 500;
/// Keys that are active in one workspace; those that a rotation replaced are apart.
pub const ACTIVE_KEYS_MAX: usize = 100;
/// Replaced keys of one lineage, and replaced secrets of one OAuth client, that still work.
pub const LIVE_PREDECESSORS_MAX: usize = 3;
/// Keys of one workspace that no longer work and are still known.
pub const ENDED_KEYS_KEPT: usize = 1_000;
/// How long a replaced key or secret goes on to work, at most.
pub const ROTATION_GRACE_MAX: Millis = Millis::days(7);
/// How long a replaced key or secret goes on to work where the caller does not say.
pub const ROTATION_GRACE: Millis = Millis::days(1);
/// Networks that one key may be used from.
pub const ALLOWED_IPS_MAX: usize = 50;
/// Keys whose last use a node remembers.
pub const LAST_USES_MAX: usize = 10_000;
/// How often a node notes in the control log when it saw keys last: a record for all of them.
pub const LAST_USES_NOTED_EVERY: Millis = Millis::minutes(10);
/// How fine the last use of a key is told.
pub const LAST_USE_EVERY: Millis = Millis::minutes(1);
/// Projects of one tenant.
pub const PROJECTS_MAX: usize = 1_000;
/// Projects that one key is narrowed to.
pub const PROJECTS_PER_KEY_MAX: usize = 100;
/// OAuth clients of one workspace.
pub const OAUTH_CLIENTS_MAX: usize = 100;
/// How long an access token works.
pub const ACCESS_TOKEN_LIFE: Millis = Millis::hours(1);
/// Revoked tokens of one client that are known one by one; past it, all that it had are revoked.
pub const REVOKED_TOKENS_MAX: usize = 1_000;
/// Bytes of a form at the token endpoint.
pub const FORM_BYTES_MAX: usize = 16 * 1024;
/// Accounts with settings of their own in one tenant.
pub const ACCOUNTS_MAX: usize = 1_000_000;
/// Metric definitions of one tenant.
pub const METRICS_MAX: usize = 10_000;
/// Quotas of one account, and of `*`.
pub const QUOTAS_PER_ACCOUNT_MAX: usize = 1_000;
/// Entries of a `metadata` or `labels` map.
pub const METADATA_ENTRIES_MAX: usize = 20;
/// Characters of a `metadata` name.
pub const METADATA_NAME_CHARS_MAX: usize = 40;
/// Characters of a `metadata` value.
pub const METADATA_VALUE_CHARS_MAX: usize = 500;
/// Imported files of one tenant that are recognised.
pub const IMPORTS_REMEMBERED_MAX: usize = 10_000;
/// Characters of a display name.
pub const NAME_CHARS_MAX: usize = 200;
/// Characters of an alert's message.
pub const MESSAGE_CHARS_MAX: usize = 2_000;
/// Bytes of a target URL.
pub const URL_BYTES_MAX: usize = 2_048;
/// What the names of the system's own metrics begin with; nobody else sends any.
pub const SYSTEM_METRIC_PREFIX: &str = "highwater.";
/// Entries of the audit log that are kept of one tenant; the oldest go first.
pub const AUDIT_ENTRIES_MAX: usize = 10_000;
/// Accesses that one node notes in the audit log in an hour: secrets that were read, escalations that were refused, tokens that were
/// issued and credentials that did not work, each once for an address (a token: a client) and reason.
pub const ACCESS_NOTES_PER_HOUR_MAX: usize = 100;
/// How many of them may be of credentials that did not work, so that strangers take no room from what callers did.
pub const ACCESS_NOTES_WITHOUT_CREDENTIAL_MAX: usize = 50;
/// How far a sandbox's clock may be put forward between two resets.
pub const SANDBOX_ADVANCE_MAX: Millis = Millis::days(31);
/// Attempts to deliver one notification of a sandbox to one destination.
pub const SANDBOX_DELIVERY_ATTEMPTS_MAX: u32 = 3;
/// How long an idempotency record is kept where the workspace does not say.
pub const IDEMPOTENCY_HORIZON: Millis = Millis::hours(24);
/// How short and how long a workspace may have its idempotency records kept.
pub const IDEMPOTENCY_HORIZON_RANGE: (Millis, Millis) = (Millis::hours(1), Millis::days(30));

/// Items of one page.
pub const PAGE_SIZE_MAX: usize = 100;
/// Items of a page where the caller does not say.
pub const PAGE_SIZE_DEFAULT: usize = 25;
/// The furthest item that `page` reaches; past it a cursor is needed.
pub const PAGE_REACH_MAX: usize = 10_000;
/// Groups of one usage query.
pub const USAGE_GROUPS_MAX: usize = 1_000;
/// Accounts, and metrics, that one usage query may name.
pub const USAGE_NAMES_MAX: usize = 1_000;
/// Warnings of one usage answer.
pub const USAGE_WARNINGS_MAX: usize = 100;
/// Parts of windows that one usage query reads.
pub const USAGE_ROWS_MAX: usize = 2_000_000;
/// Usage queries, previews and explanations that a node works on at once.
pub const USAGE_QUERIES_MAX: usize = 4;
/// Questions about one account's totals that a node works on at once.
pub const USAGE_READS_MAX: usize = 64;
/// How long a usage query may take.
pub const USAGE_QUERY_TIMEOUT: Millis = Millis::seconds(10);
/// How much time a preview may cover.
pub const PREVIEW_SPAN: Millis = Millis::days(31);
/// Windows times instances that a preview evaluates.
pub const PREVIEW_EVALUATIONS_MAX: usize = 10_000;
/// How many instances the preview of a silence looks at, at most.
pub const SILENCE_PREVIEW_INSTANCES_MAX: usize = 100_000;
/// How many instances it reads at once.
pub const SILENCE_PREVIEW_PAGE: usize = 1_000;
/// How many instances it names.
pub const SILENCE_PREVIEW_ITEMS_MAX: usize = 100;
/// How many pending messages, and how many notifications of an alert, it looks for them among.
pub const PENDING_MESSAGES_READ_MAX: usize = 1_000;
/// Points times groups of one usage answer.
pub const USAGE_POINTS_MAX: usize = 11_000;
/// Items of one `errors[]`.
pub const PROBLEM_ERRORS_MAX: usize = 20;

/// Bytes that wait for the store before the fold waits too.
pub const STORE_BACKLOG_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a partition's rows gather for a store across a network, from one write to the next. What comes alone is written at once.
pub const STORE_LINGER: Millis = Millis(100);
/// Records that one read of the journal returns.
pub const READ_RECORDS_MAX: usize = 256;
/// Bytes that one read of the journal returns, at least one record apart.
pub const READ_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of the newest records of each log that are kept in memory.
pub const TAIL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests that wait for the journal's writer.
pub const APPEND_QUEUE_MAX: usize = 1_024;

/// Endpoints that state changes are told to, of one workspace and mode.
pub const WEBHOOKS_MAX: usize = 50;
/// Patterns of one endpoint.
pub const EVENT_TYPES_PER_WEBHOOK_MAX: usize = 50;
/// Headers of an endpoint's own.
pub const WEBHOOK_HEADERS_MAX: usize = 10;
/// Bytes of the value of a header of an endpoint's own.
pub const WEBHOOK_HEADER_BYTES_MAX: usize = 1_024;
/// Characters of an endpoint's description.
pub const DESCRIPTION_CHARS_MAX: usize = 500;
/// Deliveries a second that an endpoint may ask for.
pub const WEBHOOK_RATE_MAX: u32 = 1_000;
/// Secrets of an endpoint that sign at once, the newest included.
pub const WEBHOOK_SECRETS_MAX: usize = 4;
/// How long a rotated secret may go on to sign.
pub const SECRET_GRACE_MAX: Millis = Millis::days(7);
/// How long it does where the caller does not say.
pub const SECRET_GRACE_DEFAULT: Millis = Millis::days(1);
/// How much of a quota is used, in percent, when `quota.threshold_reached` is told.
pub const QUOTA_THRESHOLD_PERCENT: u32 = 80;
/// How often endpoints are told that events were refused, for as long as it lasts.
pub const PRESSURE_EVERY: Millis = Millis::minutes(5);
/// Tenants whose refused requests a node counts at once.
pub const PRESSED_TENANTS_MAX: usize = 10_000;
/// Messages about one alert instance that wait at one channel for a resolve to close them; of more, the first and the
/// newest are named.
pub const OPEN_MESSAGES_MAX: usize = 16;
/// Deliveries that one log owes to one endpoint at once; what comes then is dropped, and can be replayed.
pub const OWED_PER_WEBHOOK_MAX: usize = 10_000;
/// Deliveries that one replay asks for.
pub const REPLAY_DELIVERIES_MAX: usize = 10_000;
/// How long behind dropped deliveries further ones belong to the same overflow of an endpoint.
pub const OVERFLOW_LASTS: Millis = Millis::hours(1);
/// How long a node gathers deliveries to one endpoint that are dropped before it tells the first of them.
pub const DROPS_GATHERED: Millis = Millis::seconds(1);
/// How far reports of a node on one endpoint's dropped deliveries are apart.
pub const DROPS_TOLD_EVERY: Millis = Millis::minutes(1);
/// Bytes of the data of an event that the control plane makes; what is longer goes without its labels.
pub const EVENT_DATA_BYTES_MAX: usize = 16 * 1024;
/// How long an endpoint may fail and nothing else before it is disabled.
pub const WEBHOOK_FAILING_MAX: Millis = Millis::days(5);
/// How often a node sums an endpoint's failures up.
pub const HEALTH_EVERY: Millis = Millis::hours(1);
/// Streams that one key, with what it was rotated from, may follow at once.
pub const STREAMS_PER_KEY_MAX: usize = 5;
/// Rows that a stream reads of the store at once, about.
pub const STREAM_PAGE_ROWS: usize = 20_000;
/// Attempts to deliver one event of a sandbox.
pub const SANDBOX_ATTEMPTS_MAX: u32 = 3;
/// How long before its end an API key is said to expire.
pub const KEY_EXPIRY_NOTICES: [Millis; 2] = [Millis::days(7), Millis::days(1)];

/// Attempts to deliver one notification to one destination.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 10;
/// Deliveries under way at once to one destination.
pub const DELIVERIES_PER_DESTINATION_MAX: usize = 4;
/// How long one delivery attempt may take.
pub const DELIVERY_TIMEOUT: Millis = Millis::seconds(15);
/// How long connecting may take.
pub const CONNECT_TIMEOUT: Millis = Millis::seconds(5);
/// Bytes that are read of a receiver's answer.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are kept of a receiver's answer.
pub const RESPONSE_BYTES_KEPT: usize = 1_024;
/// Bytes of Slack's word for a fault.
pub const SLACK_WORD_BYTES_MAX: usize = 64;
/// Lost messages that are kept of one channel in one partition, to be sent once it takes messages again: the newest of each
/// alert instance, and no more instances than these.
pub const LOST_MESSAGES_KEPT_MAX: usize = 10_000;
/// How long lost messages are kept.
pub const LOST_MESSAGES_KEPT_FOR: Millis = Millis::days(90);
/// Notifications that one Slack digest tells of.
pub const DIGEST_MESSAGES_MAX: usize = 200;
/// Accounts that a Slack digest names of one alert whose messages page nobody; it names every one that does.
pub const DIGEST_NAMES_MAX: usize = 5;
/// Lines of a Slack digest about alerts that page nobody; the rest is counted.
pub const DIGEST_LINES_MAX: usize = 40;
/// Critical pages that a Slack channel gets in messages of their own, in [`SLACK_PAGES_SPAN`].
pub const SLACK_PAGES_ALONE_MAX: usize = 10;
/// The span of [`SLACK_PAGES_ALONE_MAX`].
pub const SLACK_PAGES_SPAN: Millis = Millis::minutes(1);

// The accepted span must be inside the remembered span, or an accepted event could count twice.
const _: () = assert!(DEDUP_HORIZON.0 >= LATENESS_HORIZON.0 + AHEAD_MAX.0);
const _: () = assert!(FRAME_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(EVENT_BYTES_MAX <= JSON_BODY_BYTES_MAX);
// Docker kills what has not stopped within 10 seconds.
const _: () = assert!(DRAIN_TIMEOUT.0 + STOP_TIMEOUT.0 + FILES_CLOSE_TIMEOUT.0 + STOP_BLOCKED_TIMEOUT.0 < 8_000);

/// How long a request may take, from its head to its answer.
pub const REQUEST_TIMEOUT: Millis = Millis::seconds(30);
/// How long a request's head may take to arrive, and how long a connection may idle.
pub const HEAD_TIMEOUT: Millis = Millis::seconds(30);
/// Bytes of a file that are parsed at once by an import.
pub const IMPORT_BLOCK_BYTES: usize = 4 * 1024 * 1024;
/// Messages of the intake that are copied at once.
pub const INTAKE_BATCH_MESSAGES: usize = 50_000;
/// Gaps of the intake that are kept, the newest.
pub const INTAKE_GAPS_KEPT: usize = 1_000;
/// Connections that are open at once, and with them requests of HTTP/2 beyond the first of each, where nobody says and the
/// limit of open files leaves room for them.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Connections of one address that are open at once, and with them requests of HTTP/2 beyond the first of each, where nobody
/// says: a quarter of all, and no more than this.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1_024;
/// The least number of connections, and of connections of one address, that may be asked for.
pub const CONNECTIONS_MIN: usize = 16;
/// Connections to the admin listener that are open at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Connections that wait in the system to be accepted; of more, clients try again after a second.
pub const CONNECTIONS_WAITING_MAX: u32 = 1_024;
/// Connections that were told to give way and are not gone yet.
pub const CONNECTIONS_LEAVING_MAX: usize = 64;
/// Connections of one address that are looked at, the oldest, for one that can give way.
pub const LEAVERS_LOOKED_AT_MAX: usize = 16;
/// Descriptors that connections of the API never take: they are for the admin listener, files, stores, brokers and
/// deliveries. Half of all where there are not twice as many.
pub const DESCRIPTORS_KEPT: usize = 512;
/// Projects whose requests are counted at once until the next flush.
pub const COUNTED_PROJECTS_MAX: usize = 100_000;
/// How often the counts of requests are taken in as events.
pub const REQUESTS_FLUSH_EVERY: Millis = Millis::seconds(10);
/// Keys whose requests are counted at once, each for its two budgets.
pub const RATE_BUCKETS_MAX: usize = 100_000;
/// Addresses whose wrong credentials are counted at once.
pub const FAILING_ADDRESSES_MAX: usize = 65_536;
/// How long one asks nothing until what it asked is forgotten.
pub const RATE_IDLE: Millis = Millis::minutes(2);
/// The largest rate limit, so that the instants of one key stay below 8 MB.
pub const RATE_LIMIT_MAX: u32 = 1_000_000;
/// How long a stopping server waits for requests that are under way; what is left of them is cut off.
pub const DRAIN_TIMEOUT: Millis = Millis::seconds(3);
/// How long a stopping server waits for delivery attempts that are under way, from the signal on. What is cut off is sent again by
/// the next start, under the same id.
pub const DELIVERIES_STOP_TIMEOUT: Millis = Millis::seconds(4);
/// How long a stopping server takes at most behind its last request: attempts end, rows are stored, last snapshots are taken.
pub const STOP_TIMEOUT: Millis = Millis::seconds(4);
/// How long the journal and the store may take to be closed where that time is over.
pub const FILES_CLOSE_TIMEOUT: Millis = Millis::milliseconds(500);
/// How long a stopping process waits for calls that block, such as one to a disk or a broker that hangs.
pub const STOP_BLOCKED_TIMEOUT: Millis = Millis::milliseconds(250);
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Requests that one connection of HTTP/2 may have under way.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Bytes of one request's body that may be on their way unread over HTTP/2: 10 MiB arrive in time over 200 ms.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of all request bodies of one connection of HTTP/2 that may be on their way unread.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of an answer that are handed to HTTP/2 at once; so many must leave within twice the time limit of a request.
pub const ANSWER_PIECE_BYTES: usize = 16 * 1024;
/// Bytes of one answer that wait in HTTP/2 for the client.
pub const ANSWER_WAITING_BYTES_MAX: usize = 64 * 1024;
/// Requests that a client of HTTP/2 took back before they were looked at, past which its connection ends.
pub const STREAMS_TAKEN_BACK_MAX: usize = 20;
/// Requests of one connection of HTTP/2 that were reset for breaking the protocol, past which it ends.
pub const STREAMS_BROKEN_MAX: usize = 128;
/// How long a client of HTTP/2 may take to part when its connection ends with nothing under way.
pub const PARTING_TIMEOUT: Millis = Millis::seconds(1);
