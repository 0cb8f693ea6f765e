/*
 * tde_heap: PostgreSQL's heap itself. (A copy of its routine would be refused by heap_getnext(), which CREATE INDEX uses.) What
 * a key is needed for is caught by two hooks: a table being made, and a table being used in a statement.
 */
#include "pg_tde.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "commands/event_trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lockdefs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(pg_tdeam_handler);
PG_FUNCTION_INFO_V1(pg_tde_is_encrypted);

PG_FUNCTION_INFO_V1(pg_tde_ddl_command_start_capture);
PG_FUNCTION_INFO_V1(pg_tde_ddl_command_end_capture);

static int	captured_commands;	/* in this transaction, that have not ended */
static object_access_hook_type next_object_access;
static ExecutorCheckPerms_hook_type next_check_permissions;

static bool
is_tde_heap(Oid method)
{
	return OidIsValid(method) && method != HEAP_TABLE_AM_OID && method == get_table_am_oid("tde_heap", true);
}

bool
database_has_encrypted_tables(void)
{
	Relation	catalog = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	bool		found = false;
	HeapTuple	row;

	while (!found && (row = systable_getnext(scan)) != NULL)
	{
		Form_pg_class class = (Form_pg_class) GETSTRUCT(row);

		found = RELKIND_HAS_STORAGE(class->relkind) && is_tde_heap(class->relam);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

static void
refuse_in_clear(void)
{
	if (setting_enforce_encryption)
		ereport(ERROR, errmsg("pg_tde.enforce_encryption is ON, only the tde_heap access method is allowed."));
}

static void
table_created(Oid relation, bool internal)
{
	Relation	catalog = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData by_oid;
	SysScanDesc scan;
	HeapTuple	row;
	FormData_pg_class class = {0};

	/* The new row is no more than seconds old and not to be seen by an ordinary snapshot. */
	ScanKeyInit(&by_oid, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relation));
	scan = systable_beginscan(catalog, ClassOidIndexId, true, SnapshotSelf, 1, &by_oid);
	if ((row = systable_getnext(scan)) != NULL)
		class = *(Form_pg_class) GETSTRUCT(row);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	/* A rewritten or a TOAST table is as its table is; any other is encrypted only where the event trigger has seen the command. */
	if (!internal && captured_commands == 0)
		return;
	if (is_tde_heap(class.relam))
	{
		WalRelation record = {
			.tablespace = OidIsValid(class.reltablespace) ? class.reltablespace : MyDatabaseTableSpace,
			.database = MyDatabaseId,
			.relation = relation,
			.file = class.relfilenode,
		};

		require_database_key();
		if (RELKIND_HAS_STORAGE(class.relkind) && class.relpersistence != RELPERSISTENCE_TEMP)
			use_database_key(&record, true);
	}
	else if (!internal && (class.relkind == RELKIND_RELATION || class.relkind == RELKIND_MATVIEW) &&
			 OidIsValid(get_table_am_oid("tde_heap", true)))
		refuse_in_clear();
}

static void
object_access(ObjectAccessType access, Oid class, Oid object, int sub_id, void *argument)
{
	if (next_object_access)
		next_object_access(access, class, object, sub_id, argument);
	if (access == OAT_POST_CREATE && class == RelationRelationId && sub_id == 0)
		table_created(object, ((ObjectAccessPostCreate *) argument)->is_internal);
}

/* The first use after a start fetches the database's key, and fails without the Vault (G2). */
static bool
check_permissions(List *tables, List *permissions, bool complain)
{
	foreach_node(RangeTblEntry, table, tables)
		if (table->rtekind == RTE_RELATION && is_tde_heap(get_rel_relam(table->relid)))
			require_database_key();
	return !next_check_permissions || next_check_permissions(tables, permissions, complain);
}

/* Whether the storage of a table and of all below it is encrypted, or not: of a mix, both. */
static void
look_below(Oid oid, bool *encrypted, bool *plain)
{
	Relation	relation = relation_open(oid, NoLock);

	if (RELKIND_HAS_STORAGE(relation->rd_rel->relkind))
		*(is_tde_heap(relation->rd_rel->relam) ? encrypted : plain) = true;
	relation_close(relation, NoLock);
	foreach_oid(child, find_inheritance_children(oid, AccessShareLock))
		look_below(child, encrypted, plain);
}

/*
 * No table of which, with all below it, a part is encrypted can be altered; and with enforce_encryption, none that is in clear, but
 * by what encrypts it (pg_tde's src/pg_tde_event_capture.c).
 */
static void
check_alter_table(AlterTableStmt *statement)
{
	Oid			oid = RangeVarGetRelid(statement->relation, AccessShareLock, true);
	bool		encrypted = false;
	bool		plain = false;

	if (!OidIsValid(oid))
		return;
	look_below(oid, &encrypted, &plain);
	if (encrypted && plain)
		ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("Recursive ALTER TABLE on a mix of encrypted and unencrypted relations is not supported"));
	foreach_node(AlterTableCmd, command, statement->cmds)
		if (command->subtype == AT_SetAccessMethod && RELKIND_HAS_STORAGE(get_rel_relkind(oid)))
			encrypted = strcmp(command->name ? command->name : default_table_access_method, "tde_heap") == 0;
	if (!encrypted)
		refuse_in_clear();
}

Datum
pg_tde_ddl_command_start_capture(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigger = castNode(EventTriggerData, fcinfo->context);

	captured_commands++;
	if (IsA(trigger->parsetree, AlterTableStmt))
		check_alter_table(castNode(AlterTableStmt, trigger->parsetree));
	PG_RETURN_NULL();
}

Datum
pg_tde_ddl_command_end_capture(PG_FUNCTION_ARGS)
{
	captured_commands = Max(captured_commands - 1, 0);	/* CREATE EXTENSION has only the second half */
	PG_RETURN_NULL();
}

/* A command that failed, or dropped the triggers, was never captured at its end. */
static void
forget_captured(XactEvent event, void *argument)
{
	captured_commands = 0;
}

void
install_table_hooks(void)
{
	RegisterXactCallback(forget_captured, NULL);
	next_object_access = object_access_hook;
	object_access_hook = object_access;
	next_check_permissions = ExecutorCheckPerms_hook;
	ExecutorCheckPerms_hook = check_permissions;
}

Datum
pg_tdeam_handler(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(GetHeapamTableAmRoutine());
}

/* NULL where there is no storage; an index is what its table is. */
Datum
pg_tde_is_encrypted(PG_FUNCTION_ARGS)
{
	Oid			oid = PG_GETARG_OID(0);
	Relation	relation = relation_open(oid, AccessShareLock);
	FormData_pg_class class = *relation->rd_rel;

	relation_close(relation, AccessShareLock);
	if (!RELKIND_HAS_STORAGE(class.relkind))
		PG_RETURN_NULL();
	if (class.relkind == RELKIND_INDEX)
		return DirectFunctionCall1(pg_tde_is_encrypted, ObjectIdGetDatum(IndexGetRelation(oid, false)));
	PG_RETURN_BOOL(is_tde_heap(class.relam) && (class.relpersistence == RELPERSISTENCE_TEMP ||
												has_file_key(MyDatabaseId, oid, class.relfilenode)));
}
