"""Name the error codes of Kafka that aiokafka 0.14 does not know.

aiokafka knows codes up to 72, and 79. Any other code is `UnknownError` to it, which hides whether
a batch may be sent again. Source: Kafka protocol guide, "Error Codes" (Apache Kafka 4.1).
"""

from __future__ import annotations

from typing import Final

from aiokafka import errors

_NAMES: Final = {
    73: "TopicDeletionDisabled",
    74: "FencedLeaderEpoch",
    75: "UnknownLeaderEpoch",
    76: "UnsupportedCompressionType",
    77: "StaleBrokerEpoch",
    78: "OffsetNotAvailable",
    80: "PreferredLeaderNotAvailable",
    81: "GroupMaxSizeReached",
    82: "FencedInstanceId",
    83: "EligibleLeadersNotAvailable",
    84: "ElectionNotNeeded",
    85: "NoReassignmentInProgress",
    86: "GroupSubscribedToTopic",
    87: "InvalidRecord",
    88: "UnstableOffsetCommit",
    89: "ThrottlingQuotaExceeded",
    90: "ProducerFencedByBroker",
    91: "ResourceNotFound",
    92: "DuplicateResource",
    93: "UnacceptableCredential",
    94: "InconsistentVoterSet",
    95: "InvalidUpdateVersion",
    96: "FeatureUpdateFailed",
    97: "PrincipalDeserializationFailure",
    98: "SnapshotNotFound",
    99: "PositionOutOfRange",
    100: "UnknownTopicId",
    101: "DuplicateBrokerRegistration",
    102: "BrokerIdNotRegistered",
    103: "InconsistentTopicId",
    104: "InconsistentClusterId",
    105: "TransactionalIdNotFound",
    106: "FetchSessionTopicIdError",
    107: "IneligibleReplica",
    108: "NewLeaderElected",
    109: "OffsetMovedToTieredStorage",
    110: "FencedMemberEpoch",
    111: "UnreleasedInstanceId",
    112: "UnsupportedAssignor",
    113: "StaleMemberEpoch",
    114: "MismatchedEndpointType",
    115: "UnsupportedEndpointType",
    116: "UnknownControllerId",
    117: "UnknownSubscriptionId",
    118: "TelemetryTooLarge",
    119: "InvalidRegistration",
    120: "TransactionAbortable",
    121: "InvalidRecordState",
    122: "ShareSessionNotFound",
    123: "InvalidShareSessionEpoch",
    124: "FencedStateEpoch",
    125: "InvalidVoterKey",
    126: "DuplicateVoter",
    127: "VoterNotFound",
    128: "InvalidRegularExpression",
    129: "RebootstrapRequired",
}
_RETRIABLE: Final = {74, 75, 78, 80, 83, 88, 89, 100, 103, 106, 108, 129}


def _named(code: int, name: str) -> type[errors.BrokerResponseError]:
    content = {"errno": code, "message": name, "retriable": code in _RETRIABLE}
    return type(name, (errors.BrokerResponseError,), content)


_CLASSES: Final = {code: _named(code, name) for code, name in _NAMES.items()}
InvalidRecord: Final = _CLASSES[87]
ThrottlingQuotaExceeded: Final = _CLASSES[89]
ProducerFencedByBroker: Final = _CLASSES[90]


def error_of(code: int) -> errors.KafkaError:
    """Return the error that a broker's code stands for. Unknown codes are in the error's text."""
    known = _CLASSES.get(code) or errors.for_code(code)
    if known is errors.UnknownError and code != errors.UnknownError.errno:
        return errors.UnknownError(f"error code {code}")
    failure: errors.KafkaError = known()
    return failure


def error_name(failure: BaseException) -> str:
    """Return a failure's name for logs and metrics, such as `MessageSizeTooLarge`."""
    return type(failure).__name__.removesuffix("Error").removesuffix("Exception")
