// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// An error as the wire shows it: a row of the protocol's catalogue and a text.
struct SQSError: Error, Hashable, Sendable {
  /// One row of the catalogue.
  struct Kind: Hashable, Sendable {
    /// What `__type` says, with its namespace. Clients choose the exception class by it.
    var type: String
    /// What the query protocol, the `x-amzn-query-error` header and batch entries say.
    var queryCode: String
    var status: Int
    /// False when the client may try the same again.
    var isSenderFault = true

    fileprivate static func modelled(
      _ name: String, _ queryCode: String? = nil, _ status: Int = 400
    ) -> Kind {
      Kind(
        type: "com.amazonaws.sqs#" + name,
        queryCode: queryCode ?? "AWS.SimpleQueueService." + name, status: status)
    }

    fileprivate static func framework(
      _ name: String, _ queryCode: String, _ status: Int = 400, isSenderFault: Bool = true
    ) -> Kind {
      Kind(
        type: "com.amazon.coral.service#" + name, queryCode: queryCode, status: status,
        isSenderFault: isSenderFault)
    }

    static let batchEntryIDsNotDistinct = modelled("BatchEntryIdsNotDistinct")
    static let batchRequestTooLong = modelled("BatchRequestTooLong")
    static let emptyBatchRequest = modelled("EmptyBatchRequest")
    static let tooManyEntries = modelled("TooManyEntriesInBatchRequest")
    static let invalidBatchEntryID = modelled("InvalidBatchEntryId")
    static let invalidAddress = modelled("InvalidAddress", "InvalidAddress", 404)
    static let invalidAttributeName = modelled("InvalidAttributeName", "InvalidAttributeName")
    static let invalidAttributeValue = modelled("InvalidAttributeValue", "InvalidAttributeValue")
    static let invalidMessageContents = modelled(
      "InvalidMessageContents", "InvalidMessageContents")
    static let queueDoesNotExist = modelled(
      "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")
    static let queueNameExists = modelled("QueueNameExists", "QueueAlreadyExists")
    static let receiptHandleIsInvalid = modelled(
      "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", 404)
    static let resourceNotFound = modelled(
      "ResourceNotFoundException", "ResourceNotFoundException", 404)
    static let overLimit = modelled("OverLimit", "OverLimit", 403)
    static let purgeQueueInProgress = modelled(
      "PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress", 403)
    static let queueDeletedRecently = modelled("QueueDeletedRecently")
    static let kmsNotFound = modelled("KmsNotFound", "KMS.NotFoundException")
    static let kmsInvalidKeyUsage = modelled("KmsInvalidKeyUsage", "KMS.InvalidKeyUsageException")
    static let kmsInvalidState = modelled("KmsInvalidState", "KMS.InvalidStateException")
    static let unsupportedOperation = modelled("UnsupportedOperation")

    static let invalidParameterValue = framework(
      "InvalidParameterValueException", "InvalidParameterValue")
    static let missingParameter = framework(
      "MissingRequiredParameterException", "MissingParameter")
    static let unknownOperation = framework("UnknownOperationException", "InvalidAction")
    static let serialization = framework("SerializationException", "MalformedInput")
    static let accessDenied = framework("AccessDeniedException", "AccessDenied", 403)
    static let unrecognizedClient = framework(
      "UnrecognizedClientException", "InvalidClientTokenId", 403)
    static let invalidSignature = framework(
      "InvalidSignatureException", "SignatureDoesNotMatch", 403)
    static let incompleteSignature = framework(
      "IncompleteSignatureException", "IncompleteSignature")
    static let expiredToken = framework("ExpiredTokenException", "ExpiredToken", 403)
    static let requestTooLarge = framework(
      "RequestEntityTooLargeException", "RequestEntityTooLarge", 413)
    static let requestTimeout = framework("RequestTimeoutException", "RequestTimeout", 408)
    static let internalFailure = framework(
      "InternalFailure", "InternalFailure", 500, isSenderFault: false)
    static let serviceUnavailable = framework(
      "ServiceUnavailable", "ServiceUnavailable", 503, isSenderFault: false)
  }

  var kind: Kind
  var message: String

  init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }

  /// The text, which for a missing queue depends on the protocol.
  func text(in wire: WireProtocol) -> String {
    wire == .query && self == .queueDoesNotExist
      ? "The specified queue does not exist for this wsdl version." : message
  }

  /// `code;fault` of the `x-amzn-query-error` header.
  var queryError: String { kind.queryCode + (kind.isSenderFault ? ";Sender" : ";Receiver") }
}

extension SQSError {
  static let queueDoesNotExist = SQSError(
    .queueDoesNotExist, "The specified queue does not exist.")

  static func missing(_ parameter: String) -> SQSError {
    SQSError(.missingParameter, "The request must contain the parameter \(parameter).")
  }

  static func invalid(_ message: String) -> SQSError { SQSError(.invalidParameterValue, message) }

  static func invalid(
    _ value: String, for parameter: String, _ reason: String, limit: Int = 256
  ) -> SQSError {
    invalid("Value \(echo(value, limit)) for parameter \(parameter) is invalid. Reason: \(reason)")
  }

  static func malformedHandle(_ handle: String) -> SQSError {
    SQSError(
      .receiptHandleIsInvalid,
      "The input receipt handle \"\(echo(handle, 1024))\" is not a valid receipt handle.")
  }

  static let foreignHandle = SQSError(
    .receiptHandleIsInvalid, "The input receipt handle is invalid.")

  /// What a client sent, short enough to send back.
  static func echo(_ text: String, _ limit: Int = 256) -> String {
    text.utf8.count <= limit ? text : String(text.unicodeScalars.prefix(limit)) + "…"
  }

  /// The answer to an error of the engine that no action has words of its own for.
  init(_ error: PenstockError) {
    switch error.code {
    case .queueNotFound: self = .queueDoesNotExist
    case .invalidHandle: self = .foreignHandle
    case .messageTooLarge: self = .tooLong(error.limit ?? 0, verb: "are invalid")
    case .invalidArgument, .deadLetterQueueNotFound, .deadLetterRefused:
      self = .invalid(error.message)
    case .tooManyLeased:
      self = SQSError(.overLimit, "The maximum number of in flight messages is reached")
    case .moveTaskNotFound: self = SQSError(.resourceNotFound, "Task does not exist.")
    case .moveTaskActive, .moveTaskOver: self = .invalid(error.message)
    case .keyNotFound: self = SQSError(.kmsNotFound, error.message)
    case .keyMismatch: self = SQSError(.kmsInvalidKeyUsage, error.message)
    case .queueFull: self = SQSError(.overLimit, error.message)
    case .storeFull, .storeFailed, .closed:
      self = SQSError(.serviceUnavailable, error.message)
    default: self = SQSError(.internalFailure, error.message)
    }
  }

  /// The text for a message over its queue's limit. The real service words it differently in a
  /// single send ("are invalid") and in a batch ("cannot be validated").
  static func tooLong(_ limit: Int, verb: String) -> SQSError {
    invalid(
      "One or more parameters \(verb). Reason: Message must be shorter than \(limit) bytes.")
  }
}
