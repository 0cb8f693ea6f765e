/* Principal keys: wal_keys and <dboid>_keys, the cache in shared memory, and the SQL functions that set and show them. */
#include "pg_tde.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pg_tde_create_key_using_database_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_create_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_key_using_database_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_server_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_default_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_key_info);
PG_FUNCTION_INFO_V1(pg_tde_server_key_info);
PG_FUNCTION_INFO_V1(pg_tde_default_key_info);
PG_FUNCTION_INFO_V1(pg_tde_verify_key);
PG_FUNCTION_INFO_V1(pg_tde_verify_server_key);
PG_FUNCTION_INFO_V1(pg_tde_verify_default_key);
PG_FUNCTION_INFO_V1(pg_tde_delete_key);
PG_FUNCTION_INFO_V1(pg_tde_delete_default_key);

/* ---- files ---- */

static char *
key_path(Oid database)
{
	return database == SERVER_KEY ? pstrdup(TDE_DIR "/wal_keys") : psprintf(TDE_DIR "/%u_keys", database);
}

static bool
read_key_file(Oid database, KeyFile *info)
{
	int			file = OpenTransientFile(key_path(database), O_RDONLY | PG_BINARY);
	bool		whole;

	if (file < 0)
		return false;
	whole = read(file, info, sizeof(KeyFile)) == sizeof(KeyFile);
	CloseTransientFile(file);
	if (!whole)
		ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED), errmsg("key file \"%s\" is corrupted", key_path(database)));
	return true;
}

static void
write_key_file(const KeyFile *info)
{
	char	   *path = key_path(info->database);
	char	   *draft = psprintf("%s.r", path);
	int			file = OpenTransientFile(draft, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);

	if (file < 0 || write(file, info, sizeof(KeyFile)) != sizeof(KeyFile) || pg_fsync(file) != 0)
		ereport(ERROR, errcode_for_file_access(), errmsg("could not write key file \"%s\": %m", draft));
	CloseTransientFile(file);
	durable_rename(draft, path, ERROR);
}

static uint64
check_of(const KeyBytes *key)
{
	return hash_bytes_extended(key->bytes, key->length, 0);
}

/* ---- cache: all functions below need keys_lock() ---- */

static PrincipalKey *
cached_key(Oid database)
{
	for (int i = 0; i < KEY_CACHE_SLOTS; i++)
		if (key_cache()[i].info.database == database)
			return &key_cache()[i];
	return NULL;
}

static void
uncache_key(Oid database)
{
	PrincipalKey *slot = cached_key(database);

	if (slot)
		memset(slot, 0, sizeof(*slot));
}

static PrincipalKey *
cache_key(const PrincipalKey *key)
{
	PrincipalKey *slot;

	uncache_key(key->info.database);
	slot = cached_key(InvalidOid);
	if (!slot)
		elog(ERROR, "the contract double of pg_tde holds keys of at most %d databases", KEY_CACHE_SLOTS);
	*slot = *key;
	if (mlock(slot, sizeof(*slot)) == -1)	/* G8 */
		elog(ERROR, "could not mlock principal key cache entry: %m");
	return slot;
}

/* What the file names, as the provider has it now; NULL if no key is set. Always asks the Vault. */
static PrincipalKey *
fetch_key(Oid database)
{
	PrincipalKey *key = palloc0(sizeof(PrincipalKey));
	Keyring    *keyring;
	const char *failure;
	bool		found;

	if (!read_key_file(database, &key->info))
		return NULL;
	keyring = keyring_by_id(key->info.provider, database);
	if (!keyring)
		ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("keyring lookup failed for principal key %s, unknown keyring with ID %d", key->info.name,
					   key->info.provider));
	found = keyring_get(keyring, key->info.name, &key->key, &failure);
	if (failure)
		ereport(ERROR,
				errmsg("failed to retrieve principal key \"%s\" from key provider \"%s\"", key->info.name,
					   keyring->record.name),
				errdetail("%s", failure));
	if (!found)
		ereport(ERROR, errcode(ERRCODE_NO_DATA_FOUND),
				errmsg("key \"%s\" not found in key provider \"%s\"", key->info.name, keyring->record.name));
	if (check_of(&key->key) != key->info.check)
		ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("Failed to verify principal key header for key %s, incorrect principal key or corrupted key file",
					   key->info.name));
	return key;
}

/* The key set for just this database, from the cache if it's there (G1, G2); NULL if none is set. */
static PrincipalKey *
own_key(Oid database)
{
	PrincipalKey *key = cached_key(database);

	if (!key && (key = fetch_key(database)))
		key = cache_key(key);
	return key;
}

/* The same, but the first use makes the default key the database's own, without a word in the WAL (A4). */
static PrincipalKey *
own_or_default_key(Oid database)
{
	PrincipalKey *key = own_key(database);
	PrincipalKey copy;

	if (key || !(key = own_key(DEFAULT_KEY)))
		return key;
	copy = *key;
	copy.info.database = database;
	copy.info.entries = 0;
	write_key_file(&copy.info);
	return cache_key(&copy);
}

static bool
same_key(const PrincipalKey *one, const PrincipalKey *other)
{
	return one && other && one->info.provider == other->info.provider && strcmp(one->info.name, other->info.name) == 0;
}

/* First time: WAL, then file; nothing is fetched on replay. Later: file, then WAL, so that a refused record on a standby comes
 * too late for its file (E6), and the standby fetches the key on replay (D3, D4). */
static void
put_key(const PrincipalKey *key, bool rotation, bool log)
{
	PrincipalKey fresh = *key;
	WalRotate	rotate = {.database = key->info.database, .provider = key->info.provider};
	KeyFile		before;

	fresh.info.set_at = GetCurrentTimestamp();
	fresh.info.entries = rotation && read_key_file(key->info.database, &before) ? before.entries : 0;
	if (!rotation && log)
		log_record(WAL_ADD_PRINCIPAL_KEY, &fresh.info, sizeof(KeyFile));
	write_key_file(&fresh.info);
	if (rotation && log)
	{
		strlcpy(rotate.name, key->info.name, sizeof(rotate.name));
		log_record(WAL_ROTATE_PRINCIPAL_KEY, &rotate, sizeof(rotate));
	}
	cache_key(&fresh);
}

static void
remove_key(Oid database)
{
	log_record(WAL_DELETE_PRINCIPAL_KEY, &database, sizeof(Oid));
	durable_unlink(key_path(database), ERROR);
	uncache_key(database);
}

static void
copy_key(const PrincipalKey *from, Oid database)
{
	PrincipalKey copy = *from;

	copy.info.database = database;
	put_key(&copy, true, true);
}

static List *
all_databases(void)
{
	Relation	catalog = table_open(DatabaseRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	List	   *databases = NIL;
	HeapTuple	row;

	while ((row = systable_getnext(scan)) != NULL)
		databases = lappend_oid(databases, ((Form_pg_database) GETSTRUCT(row))->oid);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return databases;
}

/* ---- start, tables and recovery ---- */

/* In the postmaster. Only the server key is fetched at start, whether or not WAL is encrypted (G2, G3). */
void
start_server_key(bool wal_encrypt)
{
	PrincipalKey *key;

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	key = wal_encrypt ? own_or_default_key(SERVER_KEY) : own_key(SERVER_KEY);
	if (wal_encrypt && !key)	/* F1 */
		ereport(ERROR, errmsg("principal key not configured"),
				errhint("Use pg_tde_set_server_key_using_global_key_provider() to configure one."));
	if (wal_encrypt)
	{
		key->info.entries++;	/* pg_tde adds a WAL key at each start; they keep the server key from being deleted (D5) */
		write_key_file(&key->info);
	}
	LWLockRelease(keys_lock());
}

/* Before a table with tde_heap is made or used. */
void
require_database_key(void)
{
	bool		known;

	LWLockAcquire(keys_lock(), LW_SHARED);
	known = cached_key(MyDatabaseId) != NULL;
	LWLockRelease(keys_lock());
	if (known)
		return;
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	known = own_key(MyDatabaseId) || own_key(DEFAULT_KEY);
	LWLockRelease(keys_lock());
	if (!known)					/* B5 */
		ereport(ERROR, errmsg("principal key not configured"),
				errhint("Use pg_tde_set_key_using_database_key_provider() or pg_tde_set_key_using_global_key_provider() "
						"to configure one."));
}

/* A table with tde_heap is made, here or on the primary whose WAL is replayed. */
void
use_database_key(const WalRelation *relation, bool log)
{
	PrincipalKey *key;

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	key = own_or_default_key(relation->database);
	if (!key)
		ereport(ERROR, errmsg("principal key not configured"));
	key->info.entries++;
	write_key_file(&key->info);
	LWLockRelease(keys_lock());
	if (log)
		log_record(WAL_CREATE_RELATION_KEY, relation, sizeof(WalRelation));
}

/* An extension created anew forgets the database's key. */
void
forget_database_key(Oid database)
{
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	uncache_key(database);
	durable_unlink(key_path(database), DEBUG1);
	LWLockRelease(keys_lock());
}

void
redo_add_key(const KeyFile *file)
{
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	write_key_file(file);
	LWLockRelease(keys_lock());
}

void
redo_rotate_key(const WalRotate *rotate)
{
	PrincipalKey key = {.info = {.database = rotate->database, .provider = rotate->provider}};
	Keyring    *keyring;
	const char *failure;

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	(void) own_key(rotate->database);	/* pg_tde re-encrypts with the old key, so it needs that too */
	keyring = keyring_by_id(rotate->provider, rotate->database);
	if (!keyring)
		elog(ERROR, "keyring lookup failed for principal key %s, unknown keyring with ID %d", rotate->name, rotate->provider);
	strlcpy(key.info.name, rotate->name, sizeof(key.info.name));
	if (!keyring_get(keyring, rotate->name, &key.key, &failure))	/* D4 */
		ereport(ERROR,
				errmsg("failed to retrieve principal key \"%s\" from key provider \"%s\"", rotate->name,
					   keyring->record.name),
				failure ? errdetail("%s", failure) : 0);
	key.info.key_bytes = key.key.length;
	key.info.check = check_of(&key.key);
	put_key(&key, true, false);
	LWLockRelease(keys_lock());
}

/* The cache keeps the key, as pg_tde's does. */
void
redo_delete_key(Oid database)
{
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	durable_unlink(key_path(database), WARNING);
	LWLockRelease(keys_lock());
}

/* ---- providers ask ---- */

bool
provider_in_use(Oid database, int id)
{
	List	   *users = list_make1_oid(database);
	bool		used = false;

	if (database == SERVER_KEY)
		users = list_concat(lappend_oid(users, DEFAULT_KEY), all_databases());
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	foreach_oid(user, users)
	{
		PrincipalKey *key = own_key(user);

		used = used || (key && key->info.provider == id);
	}
	LWLockRelease(keys_lock());
	return used;
}

/* A provider may only be changed to one that has the same keys (D1). The default key itself isn't looked at by pg_tde. */
void
verify_keys_in_use(Keyring *changed)
{
	List	   *users = lcons_oid(SERVER_KEY, all_databases());

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	foreach_oid(user, users)
	{
		const char *what = user == SERVER_KEY ? "as server key" : psprintf("by database \"%s\"", get_database_name(user));
		KeyFile		info;
		KeyBytes	proposed;
		const char *failure;
		bool		found;

		if (!read_key_file(user, &info) || info.provider != changed->record.id)
			continue;
		found = keyring_get(changed, info.name, &proposed, &failure);
		if (failure)
			ereport(ERROR,
					errmsg("failed to retreive \"%s\" key used %s from modified key provider \"%s\"", info.name, what,
						   changed->record.name),
					errdetail("%s", failure));
		if (!found)
			ereport(ERROR, errcode(ERRCODE_NO_DATA_FOUND),
					errmsg("key \"%s\" used %s not found in modified key provider \"%s\"", info.name, what,
						   changed->record.name));
		if (check_of(&proposed) != info.check)
			ereport(ERROR,
					errmsg("key \"%s\" from modified key provider \"%s\" does not match existing %s%s", info.name,
						   changed->record.name, user == SERVER_KEY ? "server key" : "key used ",
						   user == SERVER_KEY ? "" : what));
	}
	LWLockRelease(keys_lock());
}

/* ---- SQL: create and set ---- */

static void
check_arguments(FunctionCallInfo fcinfo, Oid providers)
{
	char	   *name;

	if (providers == SERVER_KEY && !superuser())
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be superuser to access global key providers"));
	if (providers == SERVER_KEY && !setting_inherit_global_providers)
		ereport(ERROR, errmsg("usage of global key providers is disabled"),
				errhint("Set \"pg_tde.inherit_global_providers = on\" in postgresql.conf."));
	if (PG_ARGISNULL(0))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("key name cannot be null"));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (name[0] == '\0')
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key name \"\" is too short"));
	if (strlen(name) >= MAX_NAME)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key name \"%s\" is too long", name),
				errhint("Maximum length is %d bytes.", MAX_NAME - 1));
	if (PG_ARGISNULL(1))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("key provider name cannot be null"));
}

/* Works on a standby as well: no WAL is written (E6). */
static Datum
create_key(FunctionCallInfo fcinfo, Oid providers)
{
	Keyring    *keyring;
	KeyBytes	key;
	const char *failure;
	char	   *name;

	check_arguments(fcinfo, providers);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	keyring = keyring_by_name(text_to_cstring(PG_GETARG_TEXT_PP(1)), providers);
	if (keyring_get(keyring, name, &key, &failure))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("cannot create key \"%s\" because it already exists", name));
	/* failure is ignored: C7 */
	key.length = setting_key_bytes;
	if (!pg_strong_random(key.bytes, key.length))
		elog(ERROR, "could not generate new principal key");
	keyring_store(keyring, name, &key);
	PG_RETURN_VOID();
}

static void
set_key(FunctionCallInfo fcinfo, Oid providers, Oid database)
{
	PrincipalKey key = {.info = {.database = database}};
	Keyring    *keyring;
	const char *failure;
	char	   *name;
	bool		found;
	bool		rotation;

	check_arguments(fcinfo, providers);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	rotation = own_key(database) != NULL;
	keyring = keyring_by_name(text_to_cstring(PG_GETARG_TEXT_PP(1)), providers);
	found = keyring_get(keyring, name, &key.key, &failure);
	if (failure)
		ereport(ERROR,
				errmsg("failed to retrieve principal key \"%s\" from key provider \"%s\"", name, keyring->record.name),
				errdetail("%s", failure));
	if (!found)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key \"%s\" does not exist", name),
				errhint("Use pg_tde_create_key_using_%s_key_provider() to create it.",
						providers == SERVER_KEY ? "global" : "database"));
	key.info.provider = keyring->record.id;
	key.info.key_bytes = key.key.length;
	key.info.check = check_of(&key.key);
	strlcpy(key.info.name, name, sizeof(key.info.name));
	put_key(&key, rotation, true);
	LWLockRelease(keys_lock());
}

/* Whoever used the old default key uses the new one, the server too (B4). */
static void
spread_default_key(const PrincipalKey *old)
{
	List	   *users = lcons_oid(SERVER_KEY, all_databases());
	PrincipalKey key;

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	key = *own_key(DEFAULT_KEY);
	foreach_oid(user, users)
		if (same_key(old, own_key(user)))
			copy_key(&key, user);
	LWLockRelease(keys_lock());
}

Datum
pg_tde_set_default_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	PrincipalKey old = {0};
	PrincipalKey *key;
	bool		server_has_key;

	check_arguments(fcinfo, SERVER_KEY);
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	if ((key = own_key(DEFAULT_KEY)) != NULL)
		old = *key;
	LWLockRelease(keys_lock());

	set_key(fcinfo, SERVER_KEY, DEFAULT_KEY);
	if (old.info.database)
		spread_default_key(&old);

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	server_has_key = own_key(SERVER_KEY) != NULL;
	LWLockRelease(keys_lock());
	if (!server_has_key)
		set_key(fcinfo, SERVER_KEY, SERVER_KEY);	/* B4 */
	PG_RETURN_VOID();
}

Datum
pg_tde_create_key_using_database_key_provider(PG_FUNCTION_ARGS)
{
	return create_key(fcinfo, MyDatabaseId);
}

Datum
pg_tde_create_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	return create_key(fcinfo, SERVER_KEY);
}

Datum
pg_tde_set_key_using_database_key_provider(PG_FUNCTION_ARGS)
{
	set_key(fcinfo, MyDatabaseId, MyDatabaseId);
	PG_RETURN_VOID();
}

Datum
pg_tde_set_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	set_key(fcinfo, SERVER_KEY, MyDatabaseId);
	PG_RETURN_VOID();
}

Datum
pg_tde_set_server_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	set_key(fcinfo, SERVER_KEY, SERVER_KEY);
	PG_RETURN_VOID();
}

/* ---- SQL: show and verify ---- */

/* Always one row, of NULLs where nothing is set (A2). */
static Datum
key_info(FunctionCallInfo fcinfo, Oid database)
{
	TupleDesc	columns;
	Datum		values[4] = {0};
	bool		nulls[4] = {true, true, true, true};
	PrincipalKey *key;
	Keyring    *keyring;

	if (get_call_result_type(fcinfo, NULL, &columns) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "function returning record called in context that cannot accept type record");
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	if ((key = own_key(database)) != NULL)
	{
		memset(nulls, 0, sizeof(nulls));
		keyring = keyring_by_id(key->info.provider, database);
		values[0] = CStringGetTextDatum(key->info.name);
		nulls[1] = !keyring;
		if (keyring)
			values[1] = CStringGetTextDatum(keyring->record.name);
		values[2] = Int32GetDatum(key->info.provider);
		values[3] = TimestampTzGetDatum(key->info.set_at);
	}
	LWLockRelease(keys_lock());
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(columns, values, nulls)));
}

static Datum
verify_key(Oid database)
{
	PrincipalKey *stored;
	PrincipalKey *cached;

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	stored = fetch_key(database);
	cached = cached_key(database);
	if (!stored)
		ereport(ERROR, errmsg("principal key not configured for current database"));
	if (cached && (cached->key.length != stored->key.length ||
				   memcmp(cached->key.bytes, stored->key.bytes, stored->key.length) != 0))
		ereport(ERROR, errmsg("key returned from keyring and cached in pg_tde differ"));
	LWLockRelease(keys_lock());
	PG_RETURN_VOID();
}

Datum
pg_tde_key_info(PG_FUNCTION_ARGS)
{
	return key_info(fcinfo, MyDatabaseId);
}

Datum
pg_tde_server_key_info(PG_FUNCTION_ARGS)
{
	return key_info(fcinfo, SERVER_KEY);
}

Datum
pg_tde_default_key_info(PG_FUNCTION_ARGS)
{
	return key_info(fcinfo, DEFAULT_KEY);
}

Datum
pg_tde_verify_key(PG_FUNCTION_ARGS)
{
	return verify_key(MyDatabaseId);
}

Datum
pg_tde_verify_server_key(PG_FUNCTION_ARGS)
{
	return verify_key(SERVER_KEY);
}

Datum
pg_tde_verify_default_key(PG_FUNCTION_ARGS)
{
	return verify_key(DEFAULT_KEY);
}

/* ---- SQL: delete (D5) ---- */

/* Other databases' catalogs can't be read from here, so there a table once made counts for ever. */
static bool
has_tables(const PrincipalKey *key)
{
	return key->info.database == MyDatabaseId ? database_has_encrypted_tables() : key->info.entries > 0;
}

Datum
pg_tde_delete_key(PG_FUNCTION_ARGS)
{
	PrincipalKey *key;
	PrincipalKey *fallback;

	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	key = own_key(MyDatabaseId);
	if (!key)
		ereport(ERROR, errmsg("principal key does not exists for the database"));
	if (has_tables(key))
	{
		fallback = own_key(DEFAULT_KEY);
		if (!fallback || same_key(key, fallback))
			ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE), errmsg("cannot delete principal key"),
					errdetail("There are encrypted tables in the database."),
					fallback ? 0 : errhint("Set default principal key as fallback option or decrypt all tables before "
										   "deleting principal key."));
		copy_key(fallback, MyDatabaseId);
	}
	else
		remove_key(MyDatabaseId);
	LWLockRelease(keys_lock());
	PG_RETURN_VOID();
}

Datum
pg_tde_delete_default_key(PG_FUNCTION_ARGS)
{
	List	   *unused = NIL;
	List	   *databases;
	PrincipalKey *key;

	if (!superuser())
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be superuser to access global key providers"));
	databases = all_databases();
	LWLockAcquire(keys_lock(), LW_EXCLUSIVE);
	key = own_key(DEFAULT_KEY);
	if (!key)
		ereport(ERROR, errmsg("default principal key is not set"));
	foreach_oid(database, databases)
	{
		PrincipalKey *other = own_key(database);

		if (!same_key(key, other))
			continue;
		if (has_tables(other))
			ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE), errmsg("cannot delete default principal key"),
					errhint("There are encrypted tables in the database with id: %u.", database));
		unused = lappend_oid(unused, database);
	}
	if (same_key(key, own_key(SERVER_KEY)))
	{
		if (own_key(SERVER_KEY)->info.entries > 0)
			ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE), errmsg("cannot delete default principal key"),
					errhint("There are WAL encryption keys."));
		remove_key(SERVER_KEY);
	}
	foreach_oid(database, unused)
		remove_key(database);
	remove_key(DEFAULT_KEY);
	LWLockRelease(keys_lock());
	PG_RETURN_VOID();
}
