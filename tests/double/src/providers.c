/* The list of providers: <dboid>_providers, and the SQL functions that show and change it. */
#include "pg_tde.h"

#include <fcntl.h>
#include <unistd.h>

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"


static const char *const field_names[FIELD_COUNT] = {
	[FIELD_URL] = "url",
	[FIELD_MOUNT] = "mountPath",
	[FIELD_TOKEN_PATH] = "tokenPath",
	[FIELD_CA_PATH] = "caPath",
	[FIELD_NAMESPACE] = "namespace",
	[FIELD_FILE_PATH] = "path",
};

static char *
providers_path(Oid database)
{
	return psprintf(TDE_DIR "/%u_providers", database);
}

/* All records, deleted ones too; position in the list = position in the file. */
static List *
read_providers(Oid database)
{
	List	   *records = NIL;
	ProviderRecord *record = palloc(sizeof(ProviderRecord));
	int			file = OpenTransientFile(providers_path(database), O_RDONLY | PG_BINARY);

	if (file < 0)
		return NIL;
	while (read(file, record, sizeof(ProviderRecord)) == sizeof(ProviderRecord))
	{
		records = lappend(records, record);
		record = palloc(sizeof(ProviderRecord));
	}
	CloseTransientFile(file);
	return records;
}

void
delete_providers_file(Oid database)
{
	durable_unlink(providers_path(database), DEBUG1);
}

/* Writes the record at its place, not bound to any transaction (B2). */
void
write_provider(const WalProvider *change, bool log)
{
	char	   *path = providers_path(change->database);
	int			file;

	if (log)
		log_record(WAL_WRITE_KEY_PROVIDER, change, sizeof(WalProvider));
	else
		LWLockAcquire(providers_lock(), LW_EXCLUSIVE);
	file = OpenTransientFile(path, O_CREAT | O_RDWR | PG_BINARY);
	if (file < 0 ||
		pg_pwrite(file, &change->record, sizeof(ProviderRecord), change->position * sizeof(ProviderRecord)) !=
		sizeof(ProviderRecord) ||
		pg_fsync(file) != 0)
		ereport(ERROR, errcode_for_file_access(), errmsg("could not write tde file \"%s\": %m", path));
	CloseTransientFile(file);
	if (!log)
		LWLockRelease(providers_lock());
}

static Keyring *
open_record(const ProviderRecord *record)
{
	Keyring    *keyring = palloc0(sizeof(Keyring));

	keyring->record = *record;
	keyring_open(keyring);
	return keyring;
}

/* Names are compared without case here, and with case where they are written: that is B3's trap. */
Keyring *
keyring_by_name(const char *name, Oid database)
{
	ProviderRecord *found = NULL;
	List	   *records;

	LWLockAcquire(providers_lock(), LW_SHARED);
	records = read_providers(database);
	LWLockRelease(providers_lock());
	foreach_ptr(ProviderRecord, record, records)
		if (!found && record->type != PROVIDER_DELETED && pg_strcasecmp(record->name, name) == 0)
			found = record;
	if (!found)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key provider \"%s\" does not exists", name));
	return open_record(found);
}

/* NULL if there is none. Global ids are negative (A1). */
Keyring *
keyring_by_id(int id, Oid database)
{
	List	   *records;

	LWLockAcquire(providers_lock(), LW_SHARED);
	records = read_providers(id < 0 ? SERVER_KEY : database);
	LWLockRelease(providers_lock());
	foreach_ptr(ProviderRecord, record, records)
		if (record->type != PROVIDER_DELETED && record->id == id)
			return open_record(record);
	return NULL;
}

static int
field_number(const char *name, int type)
{
	for (int i = 0; i < FIELD_COUNT; i++)
		if (strcmp(name, field_names[i]) == 0 && (i == FIELD_FILE_PATH) == (type == PROVIDER_FILE))
			return i;
	ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("unexpected field \"%s\" for %s provider", name, type == PROVIDER_FILE ? "file" : "vault-v2"));
}

static void
require_fields(const char *const *values, int type)
{
	bool		token = values[FIELD_TOKEN_PATH][0];
	bool		url = values[FIELD_URL][0];
	bool		mount = values[FIELD_MOUNT][0];

	if (type == PROVIDER_FILE && !values[FIELD_FILE_PATH][0])
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("file path is missing in the keyring options"));
	if (type == PROVIDER_VAULT && !(token && url && mount))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("missing in the keyring options:%s%s%s", token ? "" : " tokenPath", url ? "" : " url",
					   mount ? "" : " mountPath"));
}

/* Fills record->fields from record->options. */
static void
parse_options(ProviderRecord *record)
{
	const char *values[FIELD_COUNT];
	char	   *end = record->fields;
	Jsonb	   *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(record->options)));
	JsonbIterator *iterator = JsonbIteratorInit(&json->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			field = 0;

	for (int i = 0; i < FIELD_COUNT; i++)
		values[i] = "";
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key provider options must be an object"));
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			field = field_number(pnstrdup(value.val.string.val, value.val.string.len), record->type);
		else if (token != WJB_VALUE)
			continue;
		else if (value.type == jbvString)
			values[field] = pnstrdup(value.val.string.val, value.val.string.len);
		else if (value.type == jbvNumeric)
			values[field] = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
		else if (value.type == jbvBool)
			ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unexpected boolean in field \"%s\"", field_names[field]));
		else if (value.type == jbvBinary && JsonContainerIsArray(value.val.binary.data))
			ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unexpected array in field \"%s\"", field_names[field]));
		else if (value.type == jbvBinary)
			elog(ERROR, "key provider value cannot be an object");
	}
	require_fields(values, record->type);
	for (int i = 0; i < FIELD_COUNT; i++)
		end = stpcpy(end, values[i]) + 1;
}

static void
require_superuser(void)
{
	if (!superuser())
		ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be superuser to modify key providers"));
}

static char *
required(FunctionCallInfo fcinfo, int argument, const char *what)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s cannot be null", what));
	return text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/* The arguments (type, name, options) as a record without id, and, for a new one, its name checked (B8). */
static ProviderRecord *
record_from_arguments(FunctionCallInfo fcinfo, bool is_new)
{
	ProviderRecord *record = palloc0(sizeof(ProviderRecord));
	char	   *type = required(fcinfo, 0, "provider type");
	char	   *name = required(fcinfo, 1, "provider name");
	char	   *options = required(fcinfo, 2, "provider options");
	int			longest = sizeof(record->name) - 1;

	if (is_new && name[0] == '\0')
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("provider name \"\" is too short"));
	if (is_new && strlen(name) >= (size_t) longest)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("provider name \"%s\" is too long", name),
				errhint("Maximum length is %d bytes.", longest));
	if (strlen(options) >= sizeof(record->options))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("too large provider options, maximum size is %zu bytes", sizeof(record->options) - 1));
	if (strcmp(type, "vault-v2") == 0)
		record->type = PROVIDER_VAULT;
	else if (strcmp(type, "file") == 0)
		record->type = PROVIDER_FILE;
	else
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown key provider type: 0"));
	strlcpy(record->name, name, sizeof(record->name));
	strlcpy(record->options, options, sizeof(record->options));
	return record;
}

static Datum
add_provider(FunctionCallInfo fcinfo, Oid database)
{
	WalProvider change = {.database = database};
	ProviderRecord *record;
	List	   *records;
	int			last_id = 0;

	require_superuser();
	record = record_from_arguments(fcinfo, true);
	parse_options(record);
	keyring_validate(open_record(record));	/* before the name is looked at */

	LWLockAcquire(providers_lock(), LW_EXCLUSIVE);
	records = read_providers(database);
	foreach_ptr(ProviderRecord, existing, records)
	{
		last_id = Max(last_id, abs(existing->id));
		if (existing->type != PROVIDER_DELETED && strcmp(existing->name, record->name) == 0)
			ereport(ERROR, errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("Key provider \"%s\" already exists.", record->name));
	}
	record->id = database == SERVER_KEY ? -(last_id + 1) : last_id + 1;
	change.position = list_length(records);
	change.record = *record;
	write_provider(&change, true);
	LWLockRelease(providers_lock());
	PG_RETURN_VOID();
}

/* The position of the record of exactly this name, -1 if there is none. To be called with the lock. */
static int
find_exactly(List *records, const char *name)
{
	foreach_ptr(ProviderRecord, record, records)
		if (record->type != PROVIDER_DELETED && strcmp(record->name, name) == 0)
			return foreach_current_index(record);
	return -1;
}

static Datum
change_provider(FunctionCallInfo fcinfo, Oid database)
{
	WalProvider change = {.database = database};
	ProviderRecord *record;
	Keyring    *keyring;
	List	   *records;
	int			position;
	int			id;

	require_superuser();
	record = record_from_arguments(fcinfo, false);
	record->id = keyring_by_name(record->name, database)->record.id;
	parse_options(record);
	keyring = open_record(record);
	keyring_validate(keyring);
	verify_keys_in_use(keyring);	/* D1 */

	LWLockAcquire(providers_lock(), LW_EXCLUSIVE);
	records = read_providers(database);
	position = find_exactly(records, record->name);
	if (position < 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("keyring \"%s\" does not exist", record->name));
	id = ((ProviderRecord *) list_nth(records, position))->id;
	if (id != record->id)
		ereport(ERROR, errcode(ERRCODE_DATA_EXCEPTION), errmsg("provider id mismatch %d is not %d", record->id, id));
	change.position = position;
	change.record = *record;
	write_provider(&change, true);
	LWLockRelease(providers_lock());
	PG_RETURN_VOID();
}

static Datum
delete_provider(FunctionCallInfo fcinfo, Oid database)
{
	WalProvider change = {.database = database};
	List	   *records;
	char	   *name;
	int			position;

	require_superuser();
	name = required(fcinfo, 0, "provider_name");
	if (provider_in_use(database, keyring_by_name(name, database)->record.id))
		ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE), errmsg("cannot delete provider which is currently in use"));

	LWLockAcquire(providers_lock(), LW_EXCLUSIVE);
	records = read_providers(database);
	position = find_exactly(records, name);
	if (position < 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key provider \"%s\" does not exists", name));
	change.position = position;
	change.record.id = ((ProviderRecord *) list_nth(records, position))->id;
	write_provider(&change, true);
	LWLockRelease(providers_lock());
	PG_RETURN_VOID();
}

static Datum
list_providers(FunctionCallInfo fcinfo, Oid database)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *records;

	InitMaterializedSRF(fcinfo, 0);
	LWLockAcquire(providers_lock(), LW_SHARED);
	records = read_providers(database);
	LWLockRelease(providers_lock());
	foreach_ptr(ProviderRecord, record, records)
	{
		Datum		values[4];
		bool		nulls[4] = {0};

		if (record->type == PROVIDER_DELETED)
			continue;
		(void) open_record(record); /* a token that can't be read is an error (A5) */
		values[0] = Int32GetDatum(record->id);
		values[1] = CStringGetTextDatum(record->name);
		values[2] = CStringGetTextDatum(record->type == PROVIDER_FILE ? "file" : "vault-v2");
		values[3] = CStringGetTextDatum(record->options);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

SQL_FUNCTION(pg_tde_add_database_key_provider, add_provider(fcinfo, MyDatabaseId))
SQL_FUNCTION(pg_tde_add_global_key_provider, add_provider(fcinfo, SERVER_KEY))
SQL_FUNCTION(pg_tde_change_database_key_provider, change_provider(fcinfo, MyDatabaseId))
SQL_FUNCTION(pg_tde_change_global_key_provider, change_provider(fcinfo, SERVER_KEY))
SQL_FUNCTION(pg_tde_delete_database_key_provider, delete_provider(fcinfo, MyDatabaseId))
SQL_FUNCTION(pg_tde_delete_global_key_provider, delete_provider(fcinfo, SERVER_KEY))
SQL_FUNCTION(pg_tde_list_all_database_key_providers, list_providers(fcinfo, MyDatabaseId))
SQL_FUNCTION(pg_tde_list_all_global_key_providers, list_providers(fcinfo, SERVER_KEY))
