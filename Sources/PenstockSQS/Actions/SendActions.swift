// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// The members that a single send and an entry of a batch have in common, types checked.
struct SendInput: Sendable {
  var body: [UInt8]
  var delay: Int?
  var attributes: [AttributeInput]
  var systemAttributes: [AttributeInput]
  var groupID: String?
  var deduplicationID: String?

  init(_ fields: Fields) throws(SQSError) {
    body = try fields.bytes("MessageBody") ?? []
    delay = try fields.integer("DelaySeconds")
    attributes = try AttributeInput.all("MessageAttributes", of: fields)
    systemAttributes = try AttributeInput.all("MessageSystemAttributes", of: fields)
    groupID = try fields.string("MessageGroupId")
    deduplicationID = try fields.string("MessageDeduplicationId")
  }

  /// What counts against the queue's limit. System attributes do not.
  var size: Int { attributes.reduce(body.count) { $0 + $1.size } }
}

/// A send that passed all checks, and the digests its answer needs.
struct CheckedSend: Sendable {
  var entry: SendEntry
  var bodyDigest: String
  var attributesDigest: String?
  var systemAttributesDigest: String?
  var isFIFO: Bool

  /// Writes the answer's members, without braces.
  func write(_ receipt: SendReceipt, to writer: inout ReplyWriter) {
    writer.member("MessageId", receipt.id.description)
    writer.member("MD5OfMessageBody", bodyDigest)
    writer.member("MD5OfMessageAttributes", ifPresent: attributesDigest)
    writer.member("MD5OfMessageSystemAttributes", ifPresent: systemAttributesDigest)
    if isFIFO { writer.member("SequenceNumber", SequenceNumber.text(receipt.lsn)) }
  }
}

/// The words in which single sends and entries of batches differ.
enum SendWording: Sendable {
  case single
  /// The number counts from 1.
  case entry(Int)

  var missingBody: String {
    switch self {
    case .single: "MessageBody"
    case .entry(let number): "SendMessageBatchRequestEntry.\(number).MessageBody"
    }
  }

  var tooLong: String { isEntry ? "cannot be validated" : "are invalid" }
  private var isEntry: Bool { if case .entry = self { true } else { false } }

  /// Refuses a parameter that the other kind of queue has; of an entry in a bare sentence.
  func wrongQueueType(_ value: String, for parameter: String, _ reason: String) -> SQSError {
    isEntry
      ? .invalid("The request include parameter that is not valid for this queue type")
      : .invalid(value, for: parameter, reason)
  }
}

extension Call {
  /// All rules for one message, in the order in which the real service lets them win.
  func check(
    _ input: SendInput, for queue: QueueListing, _ wording: SendWording
  ) throws(SQSError) -> CheckedSend {
    guard !input.body.isEmpty else { throw .missing(wording.missingBody) }
    let limit = queue.settings.maximumMessageBytes
    guard input.size <= limit else { throw .tooLong(limit, verb: wording.tooLong) }
    guard Alphabet.isWireText(input.body) else {
      throw SQSError(
        .invalidMessageContents, "Invalid characters found. \(AttributeRules.characterRule)")
    }
    let attributes = try AttributeRules.check(
      input.attributes, most: configuration.bounds.attributes)
    let trace = try SystemAttribute.traceHeader(input.systemAttributes)
    let isFIFO = queue.settings.isFIFO
    if isFIFO { try Self.checkFIFO(input, queue.settings) }
    try Self.checkID(input.groupID, "MessageGroupId")
    if isFIFO { try Self.checkID(input.deduplicationID, "MessageDeduplicationId") }
    if !isFIFO, let id = input.deduplicationID {
      throw wording.wrongQueueType(
        id, for: "MessageDeduplicationId",
        "The request includes a parameter that is not valid for this queue type.")
    }
    let delays = configuration.bounds.delay
    if let delay = input.delay, !delays.contains(delay) {
      throw .invalid(
        String(delay), for: "DelaySeconds",
        "DelaySeconds must be >= 0 and <= \(delays.upperBound).")
    }
    if isFIFO, let delay = input.delay, delay > 0 {
      throw wording.wrongQueueType(
        String(delay), for: "DelaySeconds",
        "The request include parameter that is not valid for this queue type.")
    }
    var traceText = traceHeader
    if let trace, case .string(let text) = trace.value { traceText = text }
    let content = MessageContent(
      body: input.body, attributes: attributes, groupID: input.groupID,
      deduplicationID: isFIFO ? input.deduplicationID ?? Digests.sha256(input.body) : nil,
      traceHeader: traceText, senderID: caller.principal.id)
    return CheckedSend(
      // In a FIFO queue a zero does not take the queue's delay away.
      entry: SendEntry(content, delay: isFIFO ? nil : input.delay.map { .seconds($0) }),
      bodyDigest: Digests.ofBody(input.body),
      attributesDigest: Digests.ofAttributes(attributes),
      systemAttributesDigest: Digests.ofAttributes(trace.map { [$0] } ?? []), isFIFO: isFIFO)
  }

  private static func checkID(_ id: String?, _ name: String) throws(SQSError) {
    guard let id, !Alphabet.isGroupID(id) else { return }
    throw .invalid(
      id, for: name,
      "\(name) can only include alphanumeric and punctuation characters. 1 to 128 in length.")
  }

  /// What a message for a FIFO queue must have.
  private static func checkFIFO(
    _ input: SendInput, _ settings: QueueSettings
  ) throws(SQSError) {
    guard input.groupID != nil else { throw .missing("MessageGroupId") }
    guard input.deduplicationID != nil || settings.deduplicatesByContent else {
      throw .invalid(
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId "
          + "provided explicitly")
    }
  }

  func sendMessage(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let input = try SendInput(fields)
    let queue = try queue(url)
    let send = try check(input, for: queue, .single)
    store.send([send.entry], to: queue.id) { result in
      switch result.flatMap({ $0.first ?? Self.noResult() }) {
      case .success(let receipt): finish { send.write(receipt, to: &$0) }
      case .failure(let error): fail(SQSError(error))
      }
    }
  }

  /// For an engine that answers fewer entries than it was given.
  static func noResult<Value>() -> Result<Value, PenstockError> {
    .failure(PenstockError(.outcomeUnknown, "The store gave no answer for this entry."))
  }

  func sendMessageBatch(_ fields: Fields) throws(SQSError) {
    let url = try fields.string("QueueUrl")
    let entries = try BatchEntry<SendInput>.all(of: fields) {
      (fields) throws(SQSError) in try SendInput(fields)
    }
    let queue = try queue(url)
    let bounds = configuration.bounds
    let ids = try BatchRules.check(
      entries, shape: "SendMessageBatchRequestEntry", most: bounds.batchEntries)
    let total = entries.reduce(0) { $0 + $1.input.size }
    guard total <= bounds.batchBytes else {
      throw SQSError(
        .batchRequestTooLong,
        "Batch requests cannot be longer than \(bounds.batchBytes) bytes. You have sent "
          + "\(total) bytes.")
    }
    if queue.settings.isFIFO {
      for entry in entries {
        do throws(SQSError) { try Self.checkFIFO(entry.input, queue.settings) } catch {
          // The whole request is refused, and with another code than a single send is.
          throw .invalid(error.message)
        }
      }
    }
    var outcomes: [BatchOutcome<CheckedSend>] = []
    for (place, entry) in entries.enumerated() {
      do throws(SQSError) {
        outcomes.append(.accepted(try check(entry.input, for: queue, .entry(place + 1))))
      } catch {
        outcomes.append(.refused(error))
      }
    }
    runBatch(ids, outcomes) { sends, completion in
      store.send(sends.map(\.entry), to: queue.id, completion)
    } failure: { _, error in
      error.code == .messageTooLarge
        ? .tooLong(error.limit ?? queue.settings.maximumMessageBytes, verb: "cannot be validated")
        : SQSError(error)
    } write: { send, receipt, writer in
      send.write(receipt, to: &writer)
    }
  }
}
