// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// A message that is about to be sent, with all that can be known before the lock is taken.
struct Draft: Sendable {
  var content: MessageContent
  var queue: QueueID
  var id: MessageID
  let delay: Duration?
  let priority: UInt8
  /// What stands for its group, and in a FIFO queue for what repetitions have in common.
  var group: TextHash?
  var deduplication: TextHash?
  /// Messages to the same queue that come before it in a transaction.
  var ahead = 0
  /// Bytes that count towards the queue's limit: those before it is sealed.
  let countedSize: Int
  /// The largest that its record can be, in bytes.
  var largestSize: Int

  init(_ entry: SendEntry, _ queue: QueueID, _ engine: Engine) {
    self.queue = queue
    (content, delay, priority) = (entry.content, entry.delay, entry.priority)
    countedSize = entry.content.countedSize
    largestSize = Self.largestSize(entry.content)
    id = MessageID(randomHigh: engine.random.next(), randomLow: engine.random.next())
  }

  static func largestSize(_ content: MessageContent) -> Int {
    let hash = content.groupID.map { _ in TextHash(high: 0, low: 0) }
    let (id, time) = (MessageID(high: 0, low: 0), Timestamp(milliseconds: 0))
    let sent = Record.Sent(id: id, visibleAt: time, group: hash, deduplication: hash)
    let entry = Entry(queue: QueueID(0), time: time, record: .sent(sent))
    return LogFormat.recordSize(payload: entry.payloadSize(content))
  }
}

// By index: an element in a variable is a copy.
extension [Draft] {
  /// The record that sends one of them.
  func decide(
    _ index: Int, in state: borrowing State, checksLimits: Bool = true
  ) throws(Refusal) -> State.Send {
    let drafts = span
    return try state.decideSend(
      drafts[index].queue, messageID: drafts[index].id, size: drafts[index].countedSize,
      delay: drafts[index].delay?.wholeMilliseconds, group: drafts[index].group,
      deduplication: drafts[index].deduplication, priority: drafts[index].priority,
      ahead: checksLimits ? drafts[index].ahead : nil)
  }

  /// Whether each is sealed with the key of its queue: that may have changed since.
  func areSealed(in state: borrowing State) -> Bool {
    var (queue, key) = (QueueID(0), "")
    for index in indices {
      if queue != span[index].queue { key = state.encryptionKey(span[index].queue) }
      queue = span[index].queue
      if span[index].content.sealedWith ?? "" != key { return false }
    }
    return true
  }
}

extension Engine {
  func send(
    _ entries: [SendEntry], to queue: QueueID,
    _ completion: @escaping Completion<[Result<SendReceipt, PenstockError>]>
  ) {
    var drafts = entries.map { Draft($0, queue, self) }
    let size: Int
    do throws(PenstockError) { size = try prepare(&drafts) } catch {
      return completion(.failure(error))
    }
    let sends = drafts
    submit(drains: false, completion) { engine, shared, actions in
      guard shared.state.exists(queue) else {
        engine.refuse(completion, .noQueue, &shared, &actions)
        return true
      }
      guard sends.areSealed(in: shared.state) else {
        actions.callbacks.append { engine.send(entries, to: queue, completion) }
        return true
      }
      if let isDone = engine.refusesRoom(size, drains: false, completion, &shared, &actions) {
        return isDone
      }
      var last = engine.told(shared)
      var receipts: [Result<SendReceipt, PenstockError>] = []
      receipts.reserveCapacity(sends.count)
      let drafts = sends.span
      for index in drafts.indices {
        do throws(Refusal) {
          switch try sends.decide(index, in: shared.state) {
          case .record(let record):
            last = engine.append(
              record, drafts[index].content, counted: drafts[index].countedSize,
              synced: engine.isSynced, &shared)
            receipts.append(.success(SendReceipt(id: drafts[index].id, lsn: last.value)))
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

  /// Why records do not fit into one segment together.
  func badSize(_ size: Int) -> PenstockError? {
    guard size > maximumGroupSize else { return nil }
    return PenstockError(
      .messageTooLarge,
      "the messages or settings take \(size) bytes together; segments of "
        + "\(options.segmentSize) bytes take at most \(maximumGroupSize) at once",
      limit: maximumGroupSize)
  }

  // MARK: Hashes

  /// Reckons what stands for groups, and for deduplication ids in FIFO queues, and seals.
  ///
  /// - Returns: the most bytes that the records of all can take, with `others` beside them.
  /// - Throws: also when a delay is negative, or a segment does not take all of them.
  func prepare(_ all: inout [Draft], beside others: Int = 0) throws(PenstockError) -> Int {
    var (queue, size) = (QueueID(0), others)
    var settings: QueueSettings?
    var drafts = all.mutableSpan
    for index in drafts.indices {
      if queue != drafts[index].queue {
        queue = drafts[index].queue
        settings = listing(queue)?.settings
      }
      if drafts[index].delay ?? .zero < .zero {
        throw PenstockError(.invalidArgument, "a delay is negative")
      }
      if let settings {
        prepare(&drafts[index], settings)
        if try seal(&drafts[index].content, settings) {
          drafts[index].largestSize = Draft.largestSize(drafts[index].content)
        }
      } else {
        drafts[index].content.sealedWith = nil
      }
      size += drafts[index].largestSize
    }
    if let error = badSize(size) { throw error }
    return size
  }

  private func prepare(_ draft: inout Draft, _ settings: QueueSettings) {
    guard let group = draft.content.groupID, settings.isFIFO || settings.isFair else {
      return
    }
    let scope = settings.deduplicatesByGroup ? group : nil
    draft.group = hash(Array(group.utf8), in: nil)
    guard settings.isFIFO else { return }
    if let id = draft.content.deduplicationID {
      draft.deduplication = hash(Array(id.utf8), in: scope)
    } else if settings.deduplicatesByContent {
      draft.deduplication = hash(draft.content.body, in: scope, isBody: true)
    }
  }

  func hash(_ text: [UInt8], in scope: String?, isBody: Bool = false) -> TextHash {
    var bytes: [UInt8] = [isBody ? 1 : 0, scope == nil ? 0 : 1]
    if let scope {
      bytes += Array(scope.utf8)
      // No text holds this byte, so one scope and text cannot look like another.
      bytes.append(0xff)
    }
    bytes += text
    let other = SipHash(key: (~handleKey.key.0, ~handleKey.key.1))
    return TextHash(high: handleKey.hash(bytes[...]), low: other.hash(bytes[...]))
  }
}
