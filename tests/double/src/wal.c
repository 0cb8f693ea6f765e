/* The resource manager: what a standby does when a key or provider change reaches it. */
#include "pg_tde.h"

#include "access/xlog_internal.h"
#include "access/xloginsert.h"

void
log_record(uint8 info, const void *data, uint32 length)
{
	XLogBeginInsert();			/* on a standby: "cannot make new WAL entries during recovery" (E6) */
	XLogRegisterData((char *) data, length);
	(void) XLogInsert(TDE_RMGR_ID, info);
}

/* Errors in here are FATAL for the startup process, and with it for the standby (D4). */
static void
redo(XLogReaderState *record)
{
	char	   *data = XLogRecGetData(record);

	switch (XLogRecGetInfo(record) & ~XLR_INFO_MASK)
	{
		case WAL_CREATE_RELATION_KEY:
			use_database_key((WalRelation *) data, false);
			break;
		case WAL_ADD_PRINCIPAL_KEY:
			redo_add_key((KeyFile *) data);
			break;
		case WAL_ROTATE_PRINCIPAL_KEY:
			redo_rotate_key((WalRotate *) data);
			break;
		case WAL_WRITE_KEY_PROVIDER:
			write_provider((WalProvider *) data, false);
			break;
		case WAL_INSTALL_EXTENSION:
			forget_database_key(*(Oid *) data);
			delete_providers_file(*(Oid *) data);
			break;
		case WAL_DELETE_PRINCIPAL_KEY:
			redo_delete_key(*(Oid *) data);
			break;
		default:
			elog(PANIC, "pg_tde_redo: unknown op code %u", XLogRecGetInfo(record));
	}
}

static void
describe(StringInfo text, XLogReaderState *record)
{
	char	   *data = XLogRecGetData(record);
	WalRelation *relation = (WalRelation *) data;

	switch (XLogRecGetInfo(record) & ~XLR_INFO_MASK)
	{
		case WAL_CREATE_RELATION_KEY:
			appendStringInfo(text, "rel: %u/%u/%u", relation->tablespace, relation->database, relation->relation);
			break;
		case WAL_WRITE_KEY_PROVIDER:
			appendStringInfo(text, "db: %u, provider id: %d", *(Oid *) data, ((WalProvider *) data)->record.id);
			break;
		default:				/* all others begin with the database */
			appendStringInfo(text, "db: %u", *(Oid *) data);
	}
}

static const char *
identify(uint8 info)
{
	switch (info & ~XLR_INFO_MASK)
	{
		case WAL_CREATE_RELATION_KEY:
			return "CREATE_RELATION_KEY";
		case WAL_ADD_PRINCIPAL_KEY:
			return "ADD_PRINCIPAL_KEY";
		case WAL_ROTATE_PRINCIPAL_KEY:
			return "ROTATE_PRINCIPAL_KEY";
		case WAL_WRITE_KEY_PROVIDER:
			return "WRITE_KEY_PROVIDER";
		case WAL_INSTALL_EXTENSION:
			return "INSTALL_EXTENSION";
		case WAL_DELETE_PRINCIPAL_KEY:
			return "DELETE_PRINCIPAL_KEY";
		default:
			return NULL;
	}
}

void
register_resource_manager(void)
{
	static const RmgrData manager = {
		.rm_name = "pg_tde",
		.rm_redo = redo,
		.rm_desc = describe,
		.rm_identify = identify,
	};

	RegisterCustomRmgr(TDE_RMGR_ID, &manager);
}
