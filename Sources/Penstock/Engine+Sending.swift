// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// Messages that are about to be sent, with all that can be known before the lock is taken.
struct Sending: Sendable {
  /// Sealed if their queues have keys.
  var entries: [SendEntry]
  /// One for each.
  var drafts: [Draft] = []
  /// The most bytes that their records can take, with others that come with them.
  var size: Int
}

/// What is known of one of them, beside its entry.
struct Draft: Sendable {
  let queue: QueueID
  let id: MessageID
  /// What stands for its group, and in a FIFO queue for what repetitions have in common.
  var group: TextHash?
  var deduplication: TextHash?
  /// Messages to the same queue that come before it in a transaction.
  let ahead: Int
  /// Bytes that count towards the queue's limit: those before it is sealed.
  let countedSize: Int
  /// Bytes of its content in the log.
  var storedSize: Int
}

extension MessageContent {
  /// The largest that its record can be, in bytes.
  var largestSize: Int {
    LogFormat.recordSize(payload: Entry.largestHead(hasGroup: groupID != nil) + storedSize)
  }
}

// By index: an element in a variable is a copy, which counts references.
extension Sending {
  /// The record that sends one of them.
  func decide(
    _ index: Int, in state: borrowing State, checksLimits: Bool = true
  ) throws(Refusal) -> State.Send {
    let (entries, draft) = (entries.span, drafts.span[index])
    return try state.decideSend(
      draft.queue, messageID: draft.id, size: draft.countedSize,
      delay: entries[index].delay?.wholeMilliseconds, group: draft.group,
      deduplication: draft.deduplication, priority: entries[index].priority,
      ahead: checksLimits ? draft.ahead : nil)
  }

  /// Whether each is sealed with the key of its queue: that may have changed since.
  func areSealed(in state: borrowing State) -> Bool {
    for index in drafts.indices
    where entries.span.key(index) != state.encryptionKey(drafts.span[index].queue) { return false }
    return true
  }
}

extension Engine {
  func send(
    _ entries: [SendEntry], to queue: QueueID,
    _ completion: @escaping Completion<[Result<SendReceipt, PenstockError>]>
  ) {
    let sends: Sending
    do throws(PenstockError) { sends = try prepare(entries) { _ in (queue, 0) } } catch {
      return completion(.failure(error))
    }
    submit(drains: false, completion) { engine, shared, actions in
      guard shared.state.exists(queue) else {
        engine.refuse(completion, .noQueue, &shared, &actions)
        return true
      }
      guard sends.areSealed(in: shared.state) else {
        actions.callbacks.append { engine.send(entries, to: queue, completion) }
        return true
      }
      let size = sends.size
      if let isDone = engine.refusesRoom(size, drains: false, completion, &shared, &actions) {
        return isDone
      }
      var last = engine.told(shared)
      var receipts: [Result<SendReceipt, PenstockError>] = []
      receipts.reserveCapacity(entries.count)
      for index in entries.indices {
        do throws(Refusal) {
          switch try sends.decide(index, in: shared.state) {
          case .record(let record):
            last = engine.append(record, sends, index, &shared)
            let id = sends.drafts[index].id
            receipts.append(.success(SendReceipt(id: id, lsn: last.value)))
          case .duplicate(let id, let message):
            shared.state.countDuplicate(queue)
            receipts.append(.success(SendReceipt(id: id, lsn: message, isDuplicate: true)))
          }
        } catch {
          receipts.append(.failure(PenstockError(error)))
        }
      }
      engine.answerDurably(completion, receipts, after: last, &shared, &actions)
      shared.wake(queue)
      return true
    }
  }

  /// Logs and applies the record that sends one of them.
  func append(
    _ record: Entry, _ sends: Sending, _ index: Int, _ shared: inout Shared
  ) -> LSN {
    let draft = sends.drafts.span[index]
    return append(
      record, payload: record.payloadSize() + draft.storedSize, content: draft.countedSize,
      synced: isSynced, &shared
    ) {
      sends.entries.span.encode(index, record, into: $0)
    }
  }

  /// Why records do not fit into one segment together.
  func badSize(_ size: Int) -> PenstockError? {
    guard size > maximumGroupSize else { return nil }
    return PenstockError(
      .messageTooLarge,
      "the messages or settings take \(size) bytes together; segments of "
        + "\(options.segmentSize) bytes take at most \(maximumGroupSize) at once",
      limit: maximumGroupSize)
  }

  // MARK: Preparation

  /// Reckons what stands for groups, and for deduplication ids in FIFO queues, and seals.
  ///
  /// - Parameter place: the queue of each, and how many come before it there.
  /// - Throws: also when a delay is negative, or a segment does not take all of them.
  func prepare(
    _ entries: [SendEntry], beside others: Int = 0, to place: (Int) -> (QueueID, ahead: Int)
  ) throws(PenstockError) -> Sending {
    var sends = Sending(entries: entries, size: others)
    var (last, settings) = (QueueID(0), QueueSettings?.none)
    sends.drafts.reserveCapacity(entries.count)
    for index in entries.indices {
      let (queue, ahead) = place(index)
      if queue != last { (last, settings) = (queue, listing(queue)?.settings) }
      if entries.span[index].delay ?? .zero < .zero {
        throw PenstockError(.invalidArgument, "a delay is negative")
      }
      let sizes = entries.span.sizes(index)
      var draft = Draft(
        queue: queue, id: MessageID(randomHigh: random.next(), randomLow: random.next()),
        ahead: ahead, countedSize: sizes.counted, storedSize: sizes.stored)
      if let settings, settings.isFIFO || settings.isFair {
        hash(entries.span[index].content, settings, &draft)
      }
      let key = settings?.encryptionKey ?? ""
      if !key.isEmpty || !entries.span.key(index).isEmpty {
        sends.entries[index].content.sealedWith = nil
        if let settings, !key.isEmpty {
          try seal(&sends.entries[index].content, key, settings)
        }
        draft.storedSize = sends.entries.span.sizes(index).stored
      }
      let head = Entry.largestHead(hasGroup: draft.group != nil)
      sends.size += LogFormat.recordSize(payload: head + draft.storedSize)
      sends.drafts.append(draft)
    }
    if let error = badSize(sends.size) { throw error }
    return sends
  }

  private func hash(_ content: MessageContent, _ settings: QueueSettings, _ draft: inout Draft) {
    guard let group = content.groupID else { return }
    let scope = settings.deduplicatesByGroup ? group : nil
    draft.group = hash(group.utf8, in: nil)
    guard settings.isFIFO else { return }
    if let id = content.deduplicationID {
      draft.deduplication = hash(id.utf8, in: scope)
    } else if settings.deduplicatesByContent {
      draft.deduplication = hash(content.body, in: scope, isBody: true)
    }
  }

  func hash(
    _ text: some Sequence<UInt8>, in scope: String?, isBody: Bool = false
  ) -> TextHash {
    func half(_ key: (UInt64, UInt64)) -> UInt64 {
      var hash = SipHash(key)
      hash.absorb(CollectionOfOne(isBody ? 1 : 0))
      hash.absorb(CollectionOfOne(scope == nil ? 0 : 1))
      if let scope {
        hash.absorb(scope.utf8)
        // No text holds this byte, so one scope and text cannot look like another.
        hash.absorb(CollectionOfOne(0xff))
      }
      hash.absorb(text)
      return hash.finish()
    }
    return TextHash(high: half(handleKey), low: half((~handleKey.0, ~handleKey.1)))
  }
}
