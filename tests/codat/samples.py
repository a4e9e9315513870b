"""Invented replies in Codat's shapes."""

from typing import Any

BASE_URL = "https://codat.test"
API_KEY = "sample-api-key-of-nobody"
AUTHORIZATION = "Basic c2FtcGxlLWFwaS1rZXktb2Ytbm9ib2R5"

COMPANY_ID = "8a210b68-6988-11ed-a1eb-0242ac120002"
CONNECTION_ID = "2e9d2c44-f675-40ba-8049-353bfcb5e171"
ACCOUNT_ID = "acc/001"
KEY = "6a3f2c1e-2a53-4d0f-9f1e-1c9c5b1f1a11"
OTP = "918273"
LINK = f"https://link.codat.test/company/{COMPANY_ID}/hcws?otp={OTP}"
ACCOUNT_NUMBER = "000123456789"

CONNECTION: dict[str, Any] = {
    "id": CONNECTION_ID,
    "integrationId": "fd321cb6-7963-4506-b873-e99593a45e30",
    "integrationKey": "hcws",
    "sourceId": "96e5a4ac-1dbc-4e2b-9b6c-7f2e1a7a5a0f",
    "sourceType": "BankFeed",
    "platformName": "QuickBooks Online Bank Feeds",
    "linkUrl": LINK,
    "status": "PendingAuth",
    "created": "2026-09-01T10:21:57.0807447Z",
    "lastSync": "2026-09-02T10:00:00",
    "connectionInfo": {"clientSecret": "hunter2"},
    "dataConnectionErrors": [
        {
            "statusCode": "401",
            "statusText": "Unauthorized",
            "errorMessage": f"Account {ACCOUNT_NUMBER} refused, see {LINK}",
            "erroredOnUtc": "2026-09-03T00:00:00Z",
        }
    ],
    "aFieldOfTomorrow": {"password": "hunter2"},
}
COMPANY: dict[str, Any] = {
    "id": COMPANY_ID,
    "name": "Cafe Quebec",
    "description": "A cafe",
    "redirect": f"https://link.codat.test/company/{COMPANY_ID}",
    "created": "2026-09-01T10:21:57-04:00",
    "createdByUserName": "someone@bank.test",
    "tags": {"uid": "u-1"},
    "dataConnections": [CONNECTION],
    "aFieldOfTomorrow": 1,
}
ACCOUNT_V2: dict[str, Any] = {
    "id": ACCOUNT_ID,
    "accountName": "Till",
    "accountType": "checking",
    "accountNumber": ACCOUNT_NUMBER,
    "sortCode": None,
    "routingInfo": {"bankCode": "021000021", "type": "rtn"},
    "currency": "USD",
    "balance": 99.99,
    "accountInfo": {"description": "d", "nickname": "till", "accountOpenDate": "2020-05-06T00:00:00Z"},
    "modifiedDate": "2026-09-01T00:00:00",
    "status": "pending",
    "feedStartDate": "2026-08-01",
}
ACCOUNT_V1: dict[str, Any] = {
    "id": ACCOUNT_ID,
    "accountName": "Till",
    "accountType": "Debit",
    "accountNumber": ACCOUNT_NUMBER,
    "sortCode": "123456",
    "currency": "USD",
    "balance": "0.10",
    "status": None,
    "feedStartDate": None,
}
CREDENTIALS = {"username": "qb-user-5512", "password": "qb-pass-7731"}

COMPANY_URL = f"{BASE_URL}/companies/{COMPANY_ID}"
CONNECTION_URL = f"{COMPANY_URL}/connections/{CONNECTION_ID}"
ACCOUNTS_URL = f"{CONNECTION_URL}/connectionInfo/bankFeedAccounts"
ACCOUNT_URL = f"{ACCOUNTS_URL}/acc%2F001"


def page(*items: dict[str, Any], total: int | None = None, more: bool = False, number: int = 1) -> dict[str, Any]:
    """One page of a Codat listing."""
    # The link leads elsewhere: it must not be followed.
    following = {"next": {"href": "https://evil.test/companies?page=2"}} if more else {}
    return {
        "results": list(items),
        "pageNumber": number,
        "pageSize": 5000,
        "totalResults": len(items) if total is None else total,
        "_links": {"self": {"href": "/companies"}} | following,
    }


def refusal(status: int, error: str = "No.", *, messages: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """An error body as Codat writes it."""
    return {
        "statusCode": status,
        "service": "ClientsApi",
        "error": error,
        "correlationId": "a1b2c3d4e5",
        "validation": {"errors": [{"itemId": "name", "message": text} for text in messages], "warnings": []},
        "canBeRetried": "Unknown",
        "detailedErrorCode": 0,
    } | more
