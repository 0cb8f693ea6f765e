/* The SQL functions that make, set, show, verify and delete principal keys. */
#include "pg_tde.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pg_tde_set_default_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_delete_key);
PG_FUNCTION_INFO_V1(pg_tde_delete_default_key);

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

static Datum
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
	PG_RETURN_VOID();
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

SQL_FUNCTION(pg_tde_create_key_using_database_key_provider, create_key(fcinfo, MyDatabaseId))
SQL_FUNCTION(pg_tde_create_key_using_global_key_provider, create_key(fcinfo, SERVER_KEY))
SQL_FUNCTION(pg_tde_set_key_using_database_key_provider, set_key(fcinfo, MyDatabaseId, MyDatabaseId))
SQL_FUNCTION(pg_tde_set_key_using_global_key_provider, set_key(fcinfo, SERVER_KEY, MyDatabaseId))
SQL_FUNCTION(pg_tde_set_server_key_using_global_key_provider, set_key(fcinfo, SERVER_KEY, SERVER_KEY))
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

SQL_FUNCTION(pg_tde_key_info, key_info(fcinfo, MyDatabaseId))
SQL_FUNCTION(pg_tde_server_key_info, key_info(fcinfo, SERVER_KEY))
SQL_FUNCTION(pg_tde_default_key_info, key_info(fcinfo, DEFAULT_KEY))
SQL_FUNCTION(pg_tde_verify_key, verify_key(MyDatabaseId))
SQL_FUNCTION(pg_tde_verify_server_key, verify_key(SERVER_KEY))
SQL_FUNCTION(pg_tde_verify_default_key, verify_key(DEFAULT_KEY))
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
