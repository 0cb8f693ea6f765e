/*
 * A contract double of Percona's pg_tde 2.2.0, for tests only. IT ENCRYPTS NOTHING.
 *
 * It has pg_tde's functions, errors, settings, files, Vault requests and behaviour at start and in recovery, as measured in
 * facts/pg_tde.md; comments name the fact ("D4") where the code would look odd without it. tde_heap is PostgreSQL's own heap.
 */
#include "pg_tde.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(pg_tde_version);
PG_FUNCTION_INFO_V1(pg_tde_extension_initialize);

extern void _PG_init(void);

#define LOCKS_NAME "pg_tde"

bool		setting_inherit_global_providers = true;
bool		setting_enforce_encryption = false;
int			setting_key_bytes = 16;

static bool wal_encrypt = false;
static PrincipalKey *shared_keys;
static LWLockPadded *locks;
static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

LWLock *
keys_lock(void)
{
	return &locks[0].lock;
}

LWLock *
providers_lock(void)
{
	return &locks[1].lock;
}

PrincipalKey *
key_cache(void)
{
	return shared_keys;
}

static void
define_settings(void)
{
	static const struct config_enum_entry ciphers[] = {{"aes_128", 16, false}, {"aes_256", 32, false}, {NULL, 0, false}};

	DefineCustomBoolVariable("pg_tde.wal_encrypt", "Enable/Disable encryption of WAL (the double encrypts nothing).",
							 NULL, &wal_encrypt, false, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_tde.inherit_global_providers", "Allow using global key providers for databases.",
							 NULL, &setting_inherit_global_providers, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_tde.enforce_encryption", "Only allow the creation of encrypted tables.",
							 NULL, &setting_enforce_encryption, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_tde.cipher", "TDE encryption algorithm (here: of what is said to be made with it).",
							 NULL, &setting_key_bytes, 16, ciphers, PGC_SUSET, 0, NULL, NULL, NULL);
}

static void
make_directory(void)
{
	static const int32 versions[2] = {1, 1};	/* 8 bytes, as E1 has it */
	int			file;

	if (access(TDE_DIR, F_OK) == 0)
		return;
	if (MakePGDirectory(TDE_DIR) < 0)
		ereport(ERROR, errcode_for_file_access(), errmsg("could not create tde directory \"%s\": %m", TDE_DIR));
	file = open(TDE_DIR "/keys_version", O_WRONLY | O_CREAT | O_TRUNC, pg_file_create_mode);
	if (file < 0 || write(file, versions, sizeof(versions)) != sizeof(versions))
		ereport(ERROR, errcode_for_file_access(), errmsg("could not write keys version file: %m"));
	close(file);
}

static void
request_shared_memory(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(KEY_CACHE_SLOTS * sizeof(PrincipalKey));
	RequestNamedLWLockTranche(LOCKS_NAME, 2);
}

static void
start_shared_memory(void)
{
	bool		found;

	if (next_shmem_startup)
		next_shmem_startup();
	locks = GetNamedLWLockTranche(LOCKS_NAME);
	shared_keys = ShmemInitStruct("pg_tde", KEY_CACHE_SLOTS * sizeof(PrincipalKey), &found);
	if (found)
		return;
	memset(shared_keys, 0, KEY_CACHE_SLOTS * sizeof(PrincipalKey));

	/* In the postmaster, before recovery: any error in it is FATAL and there is no server (G3, F1). */
	start_server_key(wal_encrypt);
}

void
_PG_init(void)
{
	/* FATAL, not ERROR: psql must not go on and make plain tables (E11). */
	if (!process_shared_preload_libraries_in_progress)
		elog(FATAL, "pg_tde can only be loaded at server startup. Restart required.");

	make_directory();
	define_settings();
	register_resource_manager();
	install_table_hooks();
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}

Datum
pg_tde_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text("pg_tde contract double (NOT ENCRYPTED, for tests) of 2.2.0"));
}

/* CREATE EXTENSION forgets what an earlier one left in this database; global providers and keys survive (D6). */
Datum
pg_tde_extension_initialize(PG_FUNCTION_ARGS)
{
	forget_database_key(MyDatabaseId);
	delete_providers_file(MyDatabaseId);
	log_record(WAL_INSTALL_EXTENSION, &MyDatabaseId, sizeof(Oid));
	PG_RETURN_VOID();
}
