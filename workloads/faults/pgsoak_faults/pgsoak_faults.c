/*
 * pgsoak_faults: one SQL function per way of wasting memory.
 *
 * The soak tests judge themselves with it: what grows here must be found, named and measured; what stays must not.
 * Each waste has a C function of its own that the compiler can neither inline nor drop, so that a stack ends in its name.
 * Not for servers that anybody needs.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access/parallel.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

/* In stacks under its own name, whatever the compiler thinks of it. */
#if defined(__GNUC__) && !defined(__clang__)
#define WASTER static __attribute__((noipa))
#else
#define WASTER static __attribute__((noinline))
#endif

/* The compiler must believe that somebody looks at the block. */
#define SEEN(p) __asm__ volatile("" : : "r"(p) : "memory")

/* A block of malloc on a list; the link lies inside the bytes that were asked for. */
typedef struct Kept
{
	struct Kept *next;
} Kept;

static Kept *kept_list = NULL;

static int
positive(int bytes, const char *what)
{
	if (bytes < 1 || bytes > 1024 * 1024 * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 1 and 2^30, not %d", what, bytes)));
	return bytes;
}

static void
no_memory(const void *p)
{
	if (p == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

WASTER void
lose_block(size_t bytes)
{
	void	   *p = malloc(bytes);

	no_memory(p);
	memset(p, 0x5a, bytes);
	SEEN(p);
}

WASTER void
keep_block(size_t bytes)
{
	Kept	   *block = malloc(Max(bytes, sizeof(Kept)));

	no_memory(block);
	memset(block, 0x5a, Max(bytes, sizeof(Kept)));
	block->next = kept_list;
	kept_list = block;
	SEEN(kept_list);
}

/* ---- never grow ---- */

PG_FUNCTION_INFO_V1(faults_nothing);
Datum
faults_nothing(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(0);
}

#define CACHE_ENTRY_BYTES 240

WASTER void *
cache_entry(MemoryContext cache)
{
	void	   *entry = MemoryContextAlloc(cache, CACHE_ENTRY_BYTES);

	memset(entry, 0x5a, CACHE_ENTRY_BYTES);
	return entry;
}

/* A ring: the limit of the first call of a session holds. */
PG_FUNCTION_INFO_V1(faults_cache_bounded);
Datum
faults_cache_bounded(PG_FUNCTION_ARGS)
{
	static MemoryContext cache = NULL;
	static void **ring = NULL;
	static int	limit = 0;
	static int	held = 0;
	static int	oldest = 0;
	int			entries = positive(PG_GETARG_INT32(1), "entries");

	if (cache == NULL)
	{
		MemoryContext fresh;

		limit = positive(PG_GETARG_INT32(0), "limit");
		fresh = AllocSetContextCreate(TopMemoryContext, "faults bounded cache", ALLOCSET_DEFAULT_SIZES);
		ring = MemoryContextAllocHuge(fresh, sizeof(void *) * (Size) limit);
		cache = fresh;
	}
	for (; entries > 0; entries--)
	{
		if (held < limit)
			ring[held++] = cache_entry(cache);
		else
		{
			pfree(ring[oldest]);
			ring[oldest] = cache_entry(cache);
			oldest = (oldest + 1) % limit;
		}
	}
	PG_RETURN_INT64(held);
}

WASTER void
tooth(MemoryContext saw, size_t bytes)
{
	void	   *p = MemoryContextAlloc(saw, bytes);

	memset(p, 0x5a, bytes);
	SEEN(p);
}

PG_FUNCTION_INFO_V1(faults_sawtooth);
Datum
faults_sawtooth(PG_FUNCTION_ARGS)
{
	static MemoryContext saw = NULL;
	static int64 calls = 0;
	int			period = positive(PG_GETARG_INT32(0), "period");
	int			bytes = positive(PG_GETARG_INT32(1), "bytes");

	if (saw == NULL)
		saw = AllocSetContextCreate(TopMemoryContext, "faults sawtooth", ALLOCSET_DEFAULT_SIZES);
	if (++calls >= period)
	{
		MemoryContextReset(saw);
		calls = 0;
	}
	else
		tooth(saw, (size_t) bytes);
	PG_RETURN_INT64(calls);
}

PG_FUNCTION_INFO_V1(faults_once);
Datum
faults_once(PG_FUNCTION_ARGS)
{
	static int64 lost = 0;

	if (lost == 0)
	{
		int			bytes = positive(PG_GETARG_INT32(0), "bytes");

		lose_block((size_t) bytes);
		lost = bytes;
	}
	PG_RETURN_INT64(lost);
}

/*
 * The small blocks of this call stay until the next one, so that what lies between them cannot be joined at the end of
 * the heap and given back: RssAnon stays up, while nobody holds more than the small blocks.
 */
#define PIN_BYTES 40
#define FRAGMENT_BYTES 4000

WASTER void **
pinned_blocks(int blocks)
{
	void	  **pins = malloc(sizeof(void *) * (size_t) blocks);
	void	  **large = malloc(sizeof(void *) * (size_t) blocks);

	no_memory(pins);
	no_memory(large);
	for (int i = 0; i < blocks; i++)
	{
		large[i] = malloc(FRAGMENT_BYTES);
		pins[i] = malloc(PIN_BYTES);
		no_memory(large[i]);
		no_memory(pins[i]);
		memset(large[i], 0x5a, FRAGMENT_BYTES);
		memset(pins[i], 0x5a, PIN_BYTES);
	}
	for (int i = 0; i < blocks; i++)
		free(large[i]);
	free(large);
	return pins;
}

PG_FUNCTION_INFO_V1(faults_fragment);
Datum
faults_fragment(PG_FUNCTION_ARGS)
{
	static void **before = NULL;
	static int	before_blocks = 0;
	int			blocks = positive(PG_GETARG_INT32(0), "blocks");
	void	  **pins = pinned_blocks(blocks);

	for (int i = 0; i < before_blocks; i++)
		free(before[i]);
	free(before);
	before = pins;
	before_blocks = blocks;
	PG_RETURN_INT64(blocks);
}

/* ---- grow ---- */

PG_FUNCTION_INFO_V1(faults_malloc_lost);
Datum
faults_malloc_lost(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");

	lose_block((size_t) bytes);
	wasted += bytes;
	PG_RETURN_INT64(wasted);
}

PG_FUNCTION_INFO_V1(faults_malloc_kept);
Datum
faults_malloc_kept(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");

	keep_block((size_t) bytes);
	wasted += bytes;
	PG_RETURN_INT64(wasted);
}

WASTER void
palloc_in_top(size_t bytes)
{
	void	   *p = MemoryContextAlloc(TopMemoryContext, bytes);

	memset(p, 0x5a, bytes);
	SEEN(p);
}

PG_FUNCTION_INFO_V1(faults_palloc_top);
Datum
faults_palloc_top(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");

	palloc_in_top((size_t) bytes);
	wasted += bytes;
	PG_RETURN_INT64(wasted);
}

WASTER void
keep_context(size_t bytes)
{
	MemoryContext kept = AllocSetContextCreate(TopMemoryContext, "faults kept context", ALLOCSET_SMALL_SIZES);
	void	   *p = MemoryContextAlloc(kept, bytes);

	memset(p, 0x5a, bytes);
	SEEN(p);
}

PG_FUNCTION_INFO_V1(faults_context_kept);
Datum
faults_context_kept(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");

	keep_context((size_t) bytes);
	wasted += bytes;
	PG_RETURN_INT64(wasted);
}

WASTER void
keep_plan(void)
{
	Oid			types[1] = {OIDOID};
	SPIPlanPtr	plan;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = SPI_prepare("SELECT relname FROM pg_catalog.pg_class WHERE oid = $1", 1, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_keepplan failed");
	SEEN(plan);
	SPI_finish();
}

PG_FUNCTION_INFO_V1(faults_spi_plan_kept);
Datum
faults_spi_plan_kept(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;

	keep_plan();
	PG_RETURN_INT64(++wasted);
}

WASTER void
keep_mapping(size_t bytes)
{
	char	   *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long		page = sysconf(_SC_PAGESIZE);

	if (p == MAP_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not map %zu bytes: %m", bytes)));
	for (size_t at = 0; at < bytes; at += (size_t) page)
		p[at] = 0x5a;
	SEEN(p);
}

PG_FUNCTION_INFO_V1(faults_mmap_kept);
Datum
faults_mmap_kept(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");

	keep_mapping((size_t) bytes);
	wasted += bytes;
	PG_RETURN_INT64(wasted);
}

WASTER void
keep_descriptor(void)
{
	int			fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not open /dev/null: %m")));
}

PG_FUNCTION_INFO_V1(faults_fd_kept);
Datum
faults_fd_kept(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;

	keep_descriptor();
	PG_RETURN_INT64(++wasted);
}

WASTER void
work_that_fails(size_t bytes)
{
	void	   *p = malloc(bytes);

	no_memory(p);
	memset(p, 0x5a, bytes);
	SEEN(p);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION), errmsg("work of %zu bytes failed", bytes)));
}

PG_FUNCTION_INFO_V1(faults_error_path);
Datum
faults_error_path(PG_FUNCTION_ARGS)
{
	static int64 wasted = 0;
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");
	MemoryContext caller = CurrentMemoryContext;

	/* No subtransaction is needed: nothing in there touches the database. */
	PG_TRY();
	{
		work_that_fails((size_t) bytes);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		FlushErrorState();
	}
	PG_END_TRY();
	wasted += bytes;
	PG_RETURN_INT64(wasted);
}

PG_FUNCTION_INFO_V1(faults_trigger_kept);
Datum
faults_trigger_kept(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int			bytes;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("faults_trigger_kept is for triggers FOR EACH ROW")));
	if (trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("faults_trigger_kept takes one argument: bytes")));
	bytes = positive(atoi(trigger->tg_trigger->tgargs[0]), "bytes");
	keep_block((size_t) bytes);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return PointerGetDatum(trigger->tg_newtuple);
	return PointerGetDatum(trigger->tg_trigtuple);
}

/* ---- in other processes than the session's, and at its end ---- */

/* Lost while the backend leaves: no check between two operations sees it. */
static int	bytes_at_exit = 0;

WASTER void
lose_at_exit(int code, Datum arg)
{
	lose_block((size_t) bytes_at_exit);
}

PG_FUNCTION_INFO_V1(faults_exit_lost);
Datum
faults_exit_lost(PG_FUNCTION_ARGS)
{
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");

	if (bytes_at_exit == 0)
		on_proc_exit(lose_at_exit, (Datum) 0);
	bytes_at_exit = bytes;
	PG_RETURN_INT64(bytes);
}

/* In a parallel worker only, which lives for one query: 1 where that is so. */
PG_FUNCTION_INFO_V1(faults_parallel_lost);
Datum
faults_parallel_lost(PG_FUNCTION_ARGS)
{
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");

	if (!IsParallelWorker())
		PG_RETURN_INT64(0);
	lose_block((size_t) bytes);
	PG_RETURN_INT64(1);
}

/*
 * A background worker that loses what sessions ask it to lose. It is there when the library is preloaded, and does one piece of work for
 * each call of a session, which waits for it: so its growth belongs to operations.
 */
typedef struct Work
{
	slock_t		mutex;
	Latch	   *worker;			/* NULL: it does not run */
	uint64		asked;			/* bytes that sessions have asked for */
	uint64		done;			/* of these, lost */
	int			bytes;			/* of one block */
} Work;

static Work *work = NULL;

#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type request_before = NULL;
#endif
static shmem_startup_hook_type startup_before = NULL;

static void
request_shared_memory(void)
{
#if PG_VERSION_NUM >= 150000
	if (request_before)
		request_before();
#endif
	RequestAddinShmemSpace(MAXALIGN(sizeof(Work)));
}

static void
attach_shared_memory(void)
{
	bool		found;

	if (startup_before)
		startup_before();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	work = ShmemInitStruct("pgsoak_faults work", sizeof(Work), &found);
	if (!found)
	{
		memset(work, 0, sizeof(Work));
		SpinLockInit(&work->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

static volatile sig_atomic_t worker_must_leave = false;

static void
worker_leaves(SIGNAL_ARGS)
{
	worker_must_leave = true;
	SetLatch(MyLatch);
}

static void
worker_is_gone(int code, Datum arg)
{
	SpinLockAcquire(&work->mutex);
	work->worker = NULL;
	SpinLockRelease(&work->mutex);
}

WASTER void
lose_in_worker(size_t bytes)
{
	lose_block(bytes);
}

PGDLLEXPORT void faults_worker_main(Datum arg);

void
faults_worker_main(Datum arg)
{
	pqsignal(SIGTERM, worker_leaves);
	BackgroundWorkerUnblockSignals();
	before_shmem_exit(worker_is_gone, (Datum) 0);
	SpinLockAcquire(&work->mutex);
	work->worker = MyLatch;
	SpinLockRelease(&work->mutex);
	while (!worker_must_leave)
	{
		int			bytes = 0;

		SpinLockAcquire(&work->mutex);
		if (work->done < work->asked)
			bytes = work->bytes;
		SpinLockRelease(&work->mutex);
		if (bytes > 0)
		{
			lose_in_worker((size_t) bytes);
			SpinLockAcquire(&work->mutex);
			work->done += (uint64) bytes;
			SpinLockRelease(&work->mutex);
			continue;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1000L, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	proc_exit(0);
}

PG_FUNCTION_INFO_V1(faults_worker_lost);
Datum
faults_worker_lost(PG_FUNCTION_ARGS)
{
	int			bytes = positive(PG_GETARG_INT32(0), "bytes");
	uint64		mine;
	int			waited = 0;

	if (work == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pgsoak_faults is not preloaded: its background worker does not run"),
				 errhint("Add it to shared_preload_libraries.")));
	SpinLockAcquire(&work->mutex);
	work->bytes = bytes;
	work->asked += (uint64) bytes;
	mine = work->asked;
	SpinLockRelease(&work->mutex);
	for (;;)
	{
		uint64		done;

		SpinLockAcquire(&work->mutex);
		done = work->done;
		if (done < mine && work->worker != NULL)
			SetLatch(work->worker);
		SpinLockRelease(&work->mutex);
		if (done >= mine)
			break;
		CHECK_FOR_INTERRUPTS();
		/* 5,000 a second: two minutes, also under memcheck. */
		if (++waited > 600000)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the background worker of pgsoak_faults does not answer")));
		pg_usleep(200L);
	}
	PG_RETURN_INT64((int64) mine);
}

void		_PG_init(void);

void
_PG_init(void)
{
	BackgroundWorker worker;

	if (!process_shared_preload_libraries_in_progress)
		return;
#if PG_VERSION_NUM >= 150000
	request_before = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
#else
	request_shared_memory();
#endif
	startup_before = shmem_startup_hook;
	shmem_startup_hook = attach_shared_memory;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_name, BGW_MAXLEN, "pgsoak_faults worker");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pgsoak_faults worker");
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pgsoak_faults");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "faults_worker_main");
	RegisterBackgroundWorker(&worker);
}

/* ---- wrong ---- */

WASTER void
write_behind(volatile unsigned char *block, size_t bytes)
{
	block[bytes] = 0x5a;
}

PG_FUNCTION_INFO_V1(faults_invalid_write);
Datum
faults_invalid_write(PG_FUNCTION_ARGS)
{
	/* As below: the byte behind lies in the allocator's rounding. */
	unsigned char *block = malloc(20);

	no_memory(block);
	SEEN(block);
	write_behind(block, 20);
	SEEN(block);
	free(block);
	PG_RETURN_INT64(0);
}

WASTER int
read_behind(const volatile unsigned char *block, size_t bytes)
{
	return block[bytes];
}

PG_FUNCTION_INFO_V1(faults_invalid_read);
Datum
faults_invalid_read(PG_FUNCTION_ARGS)
{
	/* 20 bytes: the one behind them lies in the allocator's rounding, so that a server without memcheck is not harmed. */
	unsigned char *block = malloc(20);
	int			seen;

	no_memory(block);
	memset(block, 0x5a, 20);
	SEEN(block);
	seen = read_behind(block, 20);
	SEEN((intptr_t) seen);
	free(block);
	PG_RETURN_INT64(0);
}

WASTER int
decide_by(const volatile unsigned char *block)
{
	/* Something to do on one side only, or compilers count instead of jumping, and memcheck reports jumps. */
	if (block[3] > 127)
	{
		SEEN(block);
		return 1;
	}
	return 2;
}

PG_FUNCTION_INFO_V1(faults_uninitialised);
Datum
faults_uninitialised(PG_FUNCTION_ARGS)
{
	unsigned char *block = malloc(20);
	int			seen;

	no_memory(block);
	SEEN(block);
	seen = decide_by(block);
	SEEN((intptr_t) seen);
	free(block);
	PG_RETURN_INT64(0);
}
