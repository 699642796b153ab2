// SPDX-License-Identifier: Apache-2.0
public import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// A message that was looked at and not received.
public struct SeenMessage: Sendable {
  /// The message's id.
  public var id: MessageID
  /// LSN of its send, or of its move to the queue.
  public var lsn: UInt64
  /// What was sent.
  public var content: MessageContent
  /// When it was sent, by the store's time.
  public var sentAt: Timestamp
  /// What it does at the moment.
  public var state: MessageState
  /// How often it was received.
  public var receiveCount: Int
  /// The queue that it was moved from, and why; nil when it was sent here.
  public var origin: MessageOrigin?
  /// Why its body and attributes are not here: it is sealed, and cannot be opened.
  public var failure: PenstockError?
  /// Where it was found, and what stands there.
  let sight: State.Sight
  let stored: MessageContent
}

extension Store {
  /// What receives of a queue would get next, in order, without receiving it: no lease, no count,
  /// nothing logged. A message may be received or gone by the time it is looked at. What is in the
  /// answer may not be durable yet. At most `limit` are shown; of a long queue some hundreds are in
  /// memory, and no more are shown.
  public func peek(
    _ queue: QueueID, limit: Int = 10, _ completion: @escaping Completion<[SeenMessage]>
  ) {
    engine.see(completion) { engine throws(PenstockError) in
      guard engine.look({ $0.exists(queue) }) else { throw .noQueue }
      return engine.seen(engine.shared.withLock { $0.state.next(queue, limit: max(0, limit)) })
    }
  }

  /// A part of a queue's messages in whatever state, delayed, leased and parked ones included, in
  /// no order that matters. To see all of them call it with the same cursor until it answers nil. A
  /// message that is there all the time is seen; one that comes from the log into memory
  /// meanwhile may be seen twice.
  public func walk(
    _ queue: QueueID, from cursor: WalkCursor,
    _ completion: @escaping Completion<(messages: [SeenMessage], next: WalkCursor?)>
  ) {
    engine.see(completion) { engine throws(PenstockError) in try engine.walk(queue, cursor) }
  }
}

extension Queue {
  /// What the next receives would get, in order, without receiving it: see `Store.peek`.
  public func peek(limit: Int = 10) async throws(PenstockError) -> [SeenMessage] {
    try await awaited { store.peek(id, limit: limit, $0) }
  }

  /// Looks at every message of the queue, in whatever state, until `body` says no; in no order.
  public func walk(_ body: (SeenMessage) throws -> Bool) async throws {
    var cursor: WalkCursor? = WalkCursor()
    while let from = cursor {
      let part = try await awaited { store.walk(id, from: from, $0) }
      for message in part.messages where try !body(message) { return }
      cursor = part.next
    }
  }

  /// The message of this id, in whatever state; nil when it is not in the queue.
  ///
  /// - Complexity: O(messages of the queue), whose ids are read from the log.
  public func message(_ id: MessageID) async throws -> SeenMessage? {
    var found: SeenMessage?
    try await walk { message in
      if message.id == id { found = message }
      return found == nil
    }
    return found
  }
}

extension Engine {
  /// Bytes of messages that are in memory for one look.
  fileprivate static let seenAtOnce = 4 << 20

  /// Does something that reads the log on the reader.
  ///
  /// - Parameter body: nil when it is to be tried again once all that was appended is written.
  func see<T: Sendable>(
    _ completion: @escaping Completion<T>,
    _ body: @escaping @Sendable (Engine) throws(PenstockError) -> T?
  ) {
    let look: @Sendable (Engine) -> Void = { engine in
      do throws(PenstockError) {
        if let value = try body(engine) { return completion(.success(value)) }
        engine.critical { shared, actions in
          engine.answer(after: shared.lastLSN, synced: false, &shared, &actions) { error, actions in
            if let error { return actions.call(completion, .failure(error)) }
            actions.callbacks.append { engine.see(completion, body) }
          }
        }
      } catch { completion(.failure(error)) }
    }
    critical { shared, actions in
      if case .closed = shared.phase {
        return actions.call(completion, .failure(shared.refusal ?? .noQueue))
      }
      actions.reads.append(.look(look))
    }
  }

  /// Reads what was sighted; leaves out what is gone by now or is damaged. Nil when something is
  /// not written yet, or was moved in the log.
  func seen(_ sights: [State.Sight]) -> [SeenMessage]? {
    var messages: [SeenMessage] = []
    for var sight in sights {
      let stored: StoredMessage?
      do throws(LogError) { stored = try self.stored(&sight) } catch {
        // One that still stands there, as far as the state knows, cannot be read.
        let (known, queue) = (sight, sight.resident.bytesQueue)
        let isThere = sight.parked == nil || look { $0.decideRemove(known, from: queue) } != nil
        guard case .system(let cause) = error, cause.isNotFound, !isThere else { continue }
        return nil
      }
      guard let stored else { return nil }
      var (content, failure) = (stored.content, PenstockError?.none)
      do throws(PenstockError) {
        content = try open(content, of: sight.resident.message)
      } catch {
        (content.body, failure) = ([], error)
      }
      messages.append(
        SeenMessage(
          id: stored.id, lsn: sight.resident.message, content: content, sentAt: stored.sentAt,
          state: sight.state, receiveCount: sight.receiveCount, origin: sight.origin,
          failure: failure, sight: sight, stored: stored.content))
    }
    return messages
  }

  /// Reads a message where it is now; nil when that is not written yet.
  private func stored(_ sight: inout State.Sight) throws(LogError) -> StoredMessage? {
    while true {
      let resident = sight.resident
      let position = LogPosition(packed: resident.position)
      guard shared.withLock({ $0.tail.isWritten(position) }) else { return nil }
      do throws(LogError) {
        return try stored(at: position, of: resident.bytesQueue, resident.message, readerWindow)
      } catch {
        // Compaction may have moved it and removed the segment.
        let now = look { $0.resident(again: sight) }
        guard let now, now.position != resident.position else { throw error }
        sight.resident = now
      }
    }
  }

  fileprivate func walk(
    _ queue: QueueID, _ from: WalkCursor
  ) throws(PenstockError) -> (messages: [SeenMessage], next: WalkCursor?)? {
    let (exists, draw) = look { state in
      (state.exists(queue), from.isInMemory ? nil : state.walkParked(queue, from, limit: 256))
    }
    guard exists else { throw .noQueue }
    guard let draw else {
      var cursor = from
      cursor.isInMemory = true
      guard let sights = look({ $0.walk(queue, &cursor, bytes: Self.seenAtOnce) }) else {
        return ([], nil)
      }
      return seen(sights).map { ($0, cursor) }
    }
    var cursor = from
    cursor.message = draw.last + 1
    do throws(LogError) {
      let waiting = try waiting(draw)
      var (sights, size) = ([State.Sight](), 0)
      for message in waiting where size < Self.seenAtOnce {
        size += Int(message.size)
        let position = LogPosition(segment: draw.segment, offset: message.offset).packed
        sights.append(
          State.Sight(parked: message, position: position, bytesQueue: queue))
      }
      if sights.count == draw.limit || sights.count < waiting.count, let last = sights.last {
        cursor.message = last.resident.message + 1
      }
      return seen(sights).map { ($0, cursor) }
    } catch {
      throw PenstockError(error)
    }
  }
}
