\echo Use "CREATE EXTENSION pgsoak_faults" to load this file. \quit

-- Never grow.
CREATE FUNCTION faults_nothing() RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_nothing() IS 'does nothing: the zero of every measurement';

CREATE FUNCTION faults_cache_bounded("limit" int, entries int DEFAULT 1) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_cache_bounded(int, int) IS 'adds entries of 240 bytes to a cache until it holds limit of them, then replaces the oldest; returns the number held';

CREATE FUNCTION faults_sawtooth(period int, bytes int DEFAULT 1024) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_sawtooth(int, int) IS 'keeps bytes more each call, and gives everything back at every period-th; returns the calls since';

CREATE FUNCTION faults_once(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_once(int) IS 'loses bytes at the first call of a session and never again';

CREATE FUNCTION faults_fragment(blocks int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_fragment(int) IS 'mallocs blocks of 4,000 bytes with small ones between, frees the large ones: the allocator keeps what nobody holds';

-- Grow, each in its own way. They return what the session has wasted so far, in the unit of the argument.
CREATE FUNCTION faults_malloc_lost(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_malloc_lost(int) IS 'malloc, pointer dropped';

CREATE FUNCTION faults_malloc_kept(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_malloc_kept(int) IS 'malloc, kept on a list that is never emptied';

CREATE FUNCTION faults_palloc_top(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_palloc_top(int) IS 'palloc in TopMemoryContext';

CREATE FUNCTION faults_context_kept(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_context_kept(int) IS 'a context "faults kept context" with bytes in it, never deleted';

CREATE FUNCTION faults_spi_plan_kept() RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_spi_plan_kept() IS 'SPI_prepare and SPI_keepplan, plan dropped';

CREATE FUNCTION faults_mmap_kept(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_mmap_kept(int) IS 'anonymous mmap, every page touched, never unmapped';

CREATE FUNCTION faults_fd_kept() RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_fd_kept() IS 'opens /dev/null and drops the descriptor';

CREATE FUNCTION faults_error_path(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_error_path(int) IS 'malloc that is freed, except when an error passes by; the error is caught inside';

CREATE FUNCTION faults_trigger_kept() RETURNS trigger
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION faults_trigger_kept() IS 'row trigger that mallocs as many bytes as its argument says, and keeps them';

-- In other processes than the session's, and at its end.
CREATE FUNCTION faults_worker_lost(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_worker_lost(int) IS 'has the background worker malloc and lose; waits for it; needs the library preloaded';

-- Dear, so that the planner gives it to workers.
CREATE FUNCTION faults_parallel_lost(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION faults_parallel_lost(int) IS 'malloc, pointer dropped, in parallel workers only; returns 1 there, else 0';

CREATE FUNCTION faults_exit_lost(bytes int) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_exit_lost(int) IS 'malloc, pointer dropped, when the backend leaves';

-- Wrong rather than wasteful: for memcheck.
CREATE FUNCTION faults_invalid_write() RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_invalid_write() IS 'writes one byte behind a block of malloc';

CREATE FUNCTION faults_invalid_read() RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_invalid_read() IS 'reads one byte behind a block of malloc';

CREATE FUNCTION faults_uninitialised() RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION faults_uninitialised() IS 'decides by a byte that was never written';
