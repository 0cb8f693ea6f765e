/* Principal keys: wal_keys and <dboid>_keys, the cache in shared memory, and what a start and recovery do with them. */
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
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

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

/* The file keys of a database, or of the WAL. */
static FileKey *
read_file_keys(Oid database, uint32 *count)
{
	int			file = OpenTransientFile(key_path(database), O_RDONLY | PG_BINARY);
	KeyFile		info;
	FileKey    *keys;

	*count = 0;
	if (file < 0)
		return NULL;
	if (read(file, &info, sizeof(info)) != sizeof(info))
		info.entries = 0;
	keys = palloc(sizeof(FileKey) * (info.entries + 1));
	if (read(file, keys, sizeof(FileKey) * info.entries) == (ssize_t) (sizeof(FileKey) * info.entries))
		*count = info.entries;
	CloseTransientFile(file);
	return keys;
}

/* The header, and as many file keys as it says: those that were there, then the added one. */
static void
write_key_file(const KeyFile *info, const FileKey *added)
{
	char	   *path = key_path(info->database);
	char	   *draft = psprintf("%s.r", path);
	uint32		count;
	FileKey    *keys = read_file_keys(info->database, &count);
	ssize_t		kept = sizeof(FileKey) * Min(count, info->entries);
	ssize_t		more = added ? sizeof(FileKey) : 0;
	int			file = OpenTransientFile(draft, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	KeyFile		header = *info;

	header.version = info->database == SERVER_KEY ? WAL_KEY_FILE_VERSION : KEY_FILE_VERSION;
	header.set_seconds = info->set_at / USECS_PER_SEC + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	header.set_microseconds = info->set_at % USECS_PER_SEC;
	if (file < 0 || write(file, &header, sizeof(KeyFile)) != sizeof(KeyFile) || write(file, keys, kept) != kept ||
		write(file, added, more) != more || pg_fsync(file) != 0)
		ereport(ERROR, errcode_for_file_access(), errmsg("could not write key file \"%s\": %m", draft));
	CloseTransientFile(file);
	durable_rename(draft, path, ERROR);
}

/* A file key of the cipher that *this process* has now: a backend, the startup process of a standby, the postmaster. */
static void
add_file_key(KeyFile *info, Oid relation, RelFileNumber number)
{
	FileKey		key = {.cipher = cipher_of(setting_key_bytes), .relation = relation, .file = number};

	info->entries++;
	write_key_file(info, &key);
}

bool
has_file_key(Oid database, Oid relation, RelFileNumber file)
{
	uint32		count;
	FileKey    *keys;
	bool		found = false;

	LWLockAcquire(keys_lock(), LW_SHARED);
	keys = read_file_keys(database, &count);
	for (uint32 i = 0; i < count; i++)
		found = found || keys[i].relation == relation || keys[i].file == file;
	LWLockRelease(keys_lock());
	return found;
}

uint64
check_of(const KeyBytes *key)
{
	return hash_bytes_extended(key->bytes, key->length, 0);
}

/* ---- cache: all functions below need keys_lock() ---- */

PrincipalKey *
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
PrincipalKey *
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
PrincipalKey *
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
	write_key_file(&copy.info, NULL);
	return cache_key(&copy);
}

bool
same_key(const PrincipalKey *one, const PrincipalKey *other)
{
	return one && other && one->info.provider == other->info.provider && strcmp(one->info.name, other->info.name) == 0;
}

/* First time: WAL, then file; nothing is fetched on replay. Later: file, then WAL, so that a refused record on a standby comes
 * too late for its file (E6), and the standby fetches the key on replay (D3, D4). */
void
put_key(const PrincipalKey *key, bool rotation, bool log)
{
	PrincipalKey fresh = *key;
	WalRotate	rotate = {.database = key->info.database, .provider = key->info.provider};
	KeyFile		before;

	fresh.info.set_at = GetCurrentTimestamp();
	fresh.info.entries = rotation && read_key_file(key->info.database, &before) ? before.entries : 0;
	if (!rotation && log)
		log_record(WAL_ADD_PRINCIPAL_KEY, &fresh.info, sizeof(KeyFile));
	write_key_file(&fresh.info, NULL);
	if (rotation && log)
	{
		strlcpy(rotate.name, key->info.name, sizeof(rotate.name));
		log_record(WAL_ROTATE_PRINCIPAL_KEY, &rotate, sizeof(rotate));
	}
	cache_key(&fresh);
}

void
remove_key(Oid database)
{
	log_record(WAL_DELETE_PRINCIPAL_KEY, &database, sizeof(Oid));
	durable_unlink(key_path(database), ERROR);
	uncache_key(database);
}

void
copy_key(const PrincipalKey *from, Oid database)
{
	PrincipalKey copy = *from;

	copy.info.database = database;
	put_key(&copy, true, true);
}

List *
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
		add_file_key(&key->info, InvalidOid, InvalidRelFileNumber);	/* one at each start; they keep the server key (D5) */
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
	add_file_key(&key->info, relation->relation, relation->file);
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
	write_key_file(file, NULL);
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
