// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// Messages that were leased and whose bytes are still to be read from the log.
struct ReadJob: Sendable {
  struct Item: Sendable {
    var position: LogPosition
    var bytesQueue: QueueID
    var origin: MessageOrigin?
    var handle: LeaseHandle
    var receiveCount: Int
    var firstReceivedAt: Timestamp
    var leaseEndsAt: Timestamp
  }
  var items: [Item]
  /// In a FIFO queue a message is as old as its last move.
  var isFIFO: Bool
  /// So few messages, and bytes, that they cost less than a hop to another thread.
  var isSmall: Bool
  var completion: Completion<[ReceivedMessage]>
}

/// What the reader does.
enum ReaderJob: Sendable {
  case messages(ReadJob)
  case draw(State.Draw)
  case look(@Sendable (Engine) -> Void)
}

extension Engine {
  /// Receives now, or when something arrives before the wait is over.
  func receive(
    _ request: ReceiveRequest, from queue: QueueID,
    _ completion: @escaping Completion<[ReceivedMessage]>
  ) -> ReceiveTicket {
    var ticket = ReceiveTicket(value: 0)
    guard request.maximumMessages > 0, request.maximumMessages <= options.maximumReceive else {
      completion(
        .failure(
          PenstockError(
            .invalidArgument, "a receive takes 1 to \(options.maximumReceive) messages")))
      return ticket
    }
    let attempt = request.attemptID.map { hash($0.utf8, in: nil) }
    critical { shared, actions in
      if let error = shared.refusal { return actions.call(completion, .failure(error)) }
      guard let defaults = shared.state.receiveDefaults(queue) else {
        return refuse(completion, .noQueue, &shared, &actions)
      }
      let wait = max(0, request.wait?.wholeMilliseconds ?? defaults.wait)
      let waiter = Waiters.Waiter(
        queue: queue, maximumMessages: request.maximumMessages,
        visibility: max(0, request.visibilityTimeout?.wholeMilliseconds ?? defaults.visibility),
        deadline: shared.state.time.adding(wait), isShort: wait == 0,
        start: shared.tail.nextLSN.value, attempt: attempt, completion: completion)
      if attempt != nil, !shared.state.isFIFO(queue) {
        let text = "a standard queue has no receives that can be repeated"
        return actions.call(completion, .failure(PenstockError(.invalidArgument, text)))
      }
      var isKnown = false
      if let attempt {
        if case .none = shared.state.attempt(queue, attempt) {} else { isKnown = true }
      }
      if shared.waiters.isWaiting(on: queue), wait > 0, !isKnown {
        // First come, first served, also when room in the log is what they wait for.
        ticket = shared.waiters.add(waiter)
        serveWaiters(on: queue, &shared, &actions)
        return
      }
      switch serve(waiter, &shared, &actions) {
      case .served: return
      case .nothing where wait == 0:
        shared.state.countEmptyReceive(queue)
        actions.call(completion, .success([]))
      case .nothing: ticket = shared.waiters.add(waiter)
      case .noRoom:
        ticket = shared.waiters.add(waiter)
        hold(ticket, &shared)
      }
    }
    return ticket
  }

  func cancel(_ ticket: ReceiveTicket) {
    critical { shared, actions in
      guard let waiter = shared.waiters.remove(ticket) else { return }
      actions.call(waiter.completion, .success([]))
    }
  }

  /// Gives what is visible to those who wait for it, in the order in which they came.
  ///
  /// - Returns: whether there is more, and no room in the log to give it.
  @discardableResult
  func serveWaiters(on queue: QueueID, _ shared: inout Shared, _ actions: inout Actions) -> Bool {
    while let (ticket, waiter) = shared.waiters.first(on: queue) {
      switch serve(waiter, &shared, &actions) {
      case .served: _ = shared.waiters.remove(ticket)
      case .nothing: return false
      case .noRoom:
        hold(ticket, &shared)
        return true
      }
    }
    return false
  }

  /// Lets a receive wait for room: its time is not over while there are messages for it.
  private func hold(_ ticket: ReceiveTicket, _ shared: inout Shared) {
    if shared.waiters.hold(ticket) { shared.receivesWaitingForRoom.append(ticket) }
  }

  /// Serves the receives that wait for room; those for whom nothing is left wait for messages
  /// again, until their deadline.
  func retryReceives(_ shared: inout Shared, _ actions: inout Actions) {
    let held = shared.receivesWaitingForRoom
    shared.receivesWaitingForRoom = []
    for ticket in held {
      guard let queue = shared.waiters.queue(of: ticket) else { continue }
      let isBlocked = serveWaiters(on: queue, &shared, &actions)
      guard shared.waiters.queue(of: ticket) != nil else { continue }
      if isBlocked {
        shared.receivesWaitingForRoom.append(ticket)
      } else {
        shared.waiters.resume(ticket)
      }
    }
  }

  private enum Serving {
    case served
    case nothing
    case noRoom
  }

  /// Leases up to the wanted number of messages, or answers that there is none.
  private func serve(
    _ waiter: Waiters.Waiter, _ shared: inout Shared, _ actions: inout Actions
  ) -> Serving {
    if let attempt = waiter.attempt, let serving = again(attempt, waiter, &shared, &actions) {
      return serving
    }
    // Nothing would be found, so nothing is waited for.
    guard let counts = shared.state.counts(waiter.queue), counts.visible > 0 else {
      return .nothing
    }
    if let allowance = shared.allowance, allowance <= 0 { return .noRoom }
    let room = removeExpired(on: waiter.queue, &shared)
    if let serving = refusal(room, waiter, &actions) { return serving }
    guard let counts = shared.state.counts(waiter.queue), counts.visible > 0 else {
      return .nothing
    }
    let allowance = shared.state.leaseAllowance(waiter.queue)
    guard allowance > 0 else { return refuseLease(waiter, shared, &actions) }
    let most = maximumGroupSize / (Self.smallRecordSize + 16) - 1
    let limit = min(waiter.maximumMessages, allowance, most)
    var found: [State.Resident] = []
    let rest = deliverable(waiter, limit, &found, &shared)
    if let serving = refusal(rest, waiter, &actions) { return serving }
    if plantedBug == .receivesNewestFirst { found.reverse() }
    guard !found.isEmpty else {
      requestDraw(for: waiter.queue, &shared, &actions)
      return shared.drawing.contains(waiter.queue) ? .noRoom : .nothing
    }
    if let serving = makeRoom(for: found, waiter, &shared, &actions) { return serving }
    // What is received will be deleted: the log grows by two records, and twice what lived may go.
    shared.spend(found.reduce(0) { $0 + 2 * $1.size + 2 * Self.smallRecordSize })
    lease(found, isAgain: false, waiter, &shared, &actions)
    return .served
  }

  /// Makes room for leases; answers what becomes of the receive when there is none.
  private func makeRoom(
    for found: [State.Resident], _ waiter: Waiters.Waiter, _ shared: inout Shared,
    _ actions: inout Actions
  ) -> Serving? {
    // What may be repeated takes a quarter more for each, and a head.
    let size = (found.count + 1) * (Self.smallRecordSize + (waiter.attempt == nil ? 0 : 16))
    return refusal(shared.tail.makeRoom(size, for: .lease), waiter, &actions)
  }

  private func refusal(
    _ room: LogTail.Room, _ waiter: Waiters.Waiter, _ actions: inout Actions
  ) -> Serving? {
    switch room {
    case .ready: return nil
    case .wait: return .noRoom
    case .full:
      actions.call(waiter.completion, .failure(.full))
      return .served
    }
  }

  /// Repeats a receive; nil when it is none that is known.
  private func again(
    _ attempt: TextHash, _ waiter: Waiters.Waiter, _ shared: inout Shared,
    _ actions: inout Actions
  ) -> Serving? {
    switch shared.state.attempt(waiter.queue, attempt) {
    case .none: return nil
    case .changed:
      let text = "a message of this receive was deleted, changed or is visible again"
      actions.call(waiter.completion, .failure(PenstockError(.attemptOver, text)))
      return .served
    case .messages(let found):
      if let serving = makeRoom(for: found, waiter, &shared, &actions) { return serving }
      lease(found, isAgain: true, waiter, &shared, &actions)
      return .served
    }
  }

  /// Logs leases, or their repetition, and lets the messages be read once that may be told.
  private func lease(
    _ found: [State.Resident], isAgain: Bool, _ waiter: Waiters.Waiter, _ shared: inout Shared,
    _ actions: inout Actions
  ) {
    var items: [ReadJob.Item] = []
    items.reserveCapacity(found.count)
    var last = LSN(0)
    var newest: UInt64 = 0
    for candidate in found {
      let entry =
        isAgain
        ? shared.state.decideRepeat(waiter.queue, candidate, timeout: waiter.visibility)
        : shared.state.decideLease(waiter.queue, candidate, timeout: waiter.visibility)
      last = append(entry, synced: false, &shared)
      newest = max(newest, candidate.message)
      let lease = shared.state.lease(candidate)
      items.append(
        ReadJob.Item(
          position: LogPosition(packed: candidate.position), bytesQueue: candidate.bytesQueue,
          origin: shared.state.origin(candidate.slot),
          handle: LeaseHandle(
            queue: waiter.queue, slot: candidate.slot, message: candidate.message,
            token: lease.token),
          receiveCount: Int(lease.receiveCount), firstReceivedAt: lease.firstReceivedAt,
          leaseEndsAt: lease.deadline))
    }
    if let attempt = waiter.attempt {
      let entry = shared.state.decideAttempt(waiter.queue, attempt, found)
      last = append(entry, synced: false, &shared)
    }
    requestDraw(for: waiter.queue, &shared, &actions)
    // Nobody may see a message that could still vanish, nor get a handle that could: what is not
    // durable yet takes the lease with it into the sync it waits for.
    let mustSync =
      isSynced && LSN(newest) > shared.tail.durableLSN && plantedBug != .showsUnsynced
      || slotMayVanish(newest, of: waiter.queue, shared) && plantedBug != .showsUndurableDraws
    if mustSync {
      shared.tail.requireSync()
      shared.lastSynced = last
    }
    let isFIFO = shared.state.isFIFO(waiter.queue)
    let isSmall = found.count <= 64 && found.reduce(0) { $0 + $1.size } <= 128 << 10
    let job = ReadJob(
      items: items, isFIFO: isFIFO, isSmall: isSmall, completion: waiter.completion)
    answer(job, after: last, synced: mustSync, &shared, &actions)
  }

  /// Lets messages be read, or read again, once the log has come so far.
  private func answer(
    _ job: ReadJob, after lsn: LSN, synced: Bool, _ shared: inout Shared, _ actions: inout Actions
  ) {
    answer(after: lsn, synced: synced, &shared, &actions) { error, actions in
      if let error { return actions.call(job.completion, .failure(error)) }
      actions.reads.append(.messages(job))
    }
  }

  /// As many messages are leased as may be: a FIFO queue, or a long poll, waits for a change.
  private func refuseLease(
    _ waiter: Waiters.Waiter, _ shared: borrowing Shared, _ actions: inout Actions
  ) -> Serving {
    guard waiter.isShort, let settings = shared.state.settings(waiter.queue), !settings.isFIFO
    else { return .nothing }
    actions.call(
      waiter.completion,
      .failure(
        PenstockError(
          .tooManyLeased, "as many messages are leased as the queue's maximumLeased allows",
          limit: settings.maximumLeased, setting: .maximumLeased)))
    return .served
  }

  /// Finds messages that can be received, and moves those to the dead-letter queue that were
  /// received too often.
  ///
  /// - Returns: wait when there are too many of those to move under one lock.
  private func deliverable(
    _ waiter: Waiters.Waiter, _ limit: Int, _ found: inout [State.Resident],
    _ shared: inout Shared
  ) -> LogTail.Room {
    let queue = waiter.queue
    var depth = limit
    for _ in 0..<8 {
      found = shared.state.candidates(queue, limit: depth)
      guard let target = shared.state.deadLetterQueue(of: queue) else { return .ready }
      // Those behind what is to be delivered are left to the receive that comes to them.
      var fresh = 0
      let exhausted = found.filter { candidate in
        guard fresh < limit else { return false }
        if shared.state.isExhausted(queue, candidate) { return true }
        fresh += 1
        return false
      }
      // What came back from there, because queues name each other, is not moved on.
      let dead = exhausted.filter {
        $0.message < waiter.start || shared.state.origin($0.slot) == nil
      }
      guard !dead.isEmpty else {
        let isAll = found.count < depth || exhausted.isEmpty || depth > 4096
        if !exhausted.isEmpty { found.removeAll { shared.state.isExhausted(queue, $0) } }
        // Others may stand behind those that stay.
        if !isAll, found.count < limit {
          depth = max(64, depth * 8)
          continue
        }
        found.removeLast(max(0, found.count - limit))
        return .ready
      }
      let room = shared.tail.makeRoom(dead.count * Self.smallRecordSize, for: .lease)
      guard case .ready = room else { return room }
      for message in dead {
        let entry = shared.state.decideTransfer(queue, message, to: target, .receivedTooOften)
        _ = append(entry, synced: false, &shared)
      }
      shared.wake(target)
      depth = max(limit, 64)
    }
    return .wait
  }

  /// Removes messages of a queue whose retention has ended, so that none is delivered.
  ///
  /// - Returns: ready when all are gone. A few records at most are written in one go, so that
  ///   nobody waits long for the lock; the scheduler goes on with the rest.
  func removeExpired(
    on queue: QueueID, for purpose: LogTail.Purpose = .lease, _ shared: inout Shared
  ) -> LogTail.Room {
    for _ in 0..<8 {
      guard let entry = shared.state.decideExpire(queue) else { return .ready }
      let room = shared.tail.makeRoom(Self.smallRecordSize, for: purpose)
      guard case .ready = room else { return room }
      _ = append(entry, synced: false, &shared)
    }
    return shared.state.decideExpire(queue) == nil ? .ready : .wait
  }

  // MARK: Reading

  /// Reads the messages of one receive and answers it.
  ///
  /// A message whose bytes are damaged is not delivered: it is set aside and reported. One that
  /// cannot be read at all, or opened, stays, and comes back when its lease ends.
  func read(_ job: ReadJob, _ window: borrowing Mutex<ReadWindow>) {
    var messages: [ReceivedMessage] = []
    messages.reserveCapacity(job.items.count)
    var failure: PenstockError?
    // Groups that wait for a message of theirs which cannot be opened.
    var held: Set<String?> = []
    for item in job.items {
      var (position, bytesQueue) = (item.position, item.bytesQueue)
      do throws(LogError) {
        guard var stored = try read(&position, &bytesQueue, of: item.handle, window) else {
          if position == item.position { continue }
          return readLater(job)
        }
        if job.isFIFO, held.contains(stored.content.groupID) { continue }
        if stored.content.sealedWith != nil {
          do throws(PenstockError) {
            stored.content = try open(stored.content, of: item.handle.message)
          } catch {
            options.log?(error.description)
            failure = error
            held.insert(stored.content.groupID)
            continue
          }
        }
        messages.append(
          ReceivedMessage(
            id: stored.id, handle: item.handle, content: stored.content,
            sentAt: (job.isFIFO ? item.origin?.movedAt : nil) ?? stored.sentAt,
            firstReceivedAt: item.firstReceivedAt, receiveCount: item.receiveCount,
            leaseEndsAt: item.leaseEndsAt, origin: item.origin))
      } catch {
        let text =
          "message with LSN \(item.handle.message) cannot be read and was not delivered: \(error)"
        options.log?(text)
        failure = PenstockError(.unreadableMessage, text)
        // Compaction may have moved it since: then another copy was not looked at.
        if case .corrupted = error, let resident = look({ $0.resident(item.handle) }),
          resident.position == position.packed
        {
          setAside(resident)
        } else if job.isFIFO {
          // It stays, and so do those behind it: of which group it is cannot be read.
          break
        }
      }
    }
    if let failure, messages.isEmpty {
      job.completion(.failure(failure))
    } else {
      job.completion(.success(messages))
    }
  }

  /// Whether a job needs neither the disk nor a cipher, which may take their time, and is small.
  func isAtHand(_ job: ReaderJob) -> Bool {
    guard case .messages(let job) = job, job.isSmall, options.cipher == nil else { return false }
    return log.keeps(job.items.count) { job.items[$0].position }
  }

  /// Reads the messages once all that was appended is written: one was moved a moment ago.
  private func readLater(_ job: ReadJob) {
    critical { shared, actions in
      answer(job, after: shared.lastLSN, synced: false, &shared, &actions)
    }
  }

  /// Reads a message whose bytes name a queue.
  func stored(
    at place: LogPosition, of queue: QueueID, _ message: UInt64,
    _ window: borrowing Mutex<ReadWindow>
  ) throws(LogError) -> StoredMessage {
    try window.withLock { (window) throws(LogError) in
      try log.read(place, &window) { (payload) throws(LogError) in
        do throws(RecordError) {
          let stored = try StoredMessage(payload)
          if stored.queue == queue { return stored }
          throw RecordError(description: "a message of another queue stands in its place")
        } catch {
          throw .corrupted(
            .init(
              file: "segment \(place.segment)", offset: UInt64(place.offset), lsn: LSN(message),
              reason: error.description))
        }
      }
    }
  }

  /// Reads a message, also when it was moved since its place was looked up; nil when it is gone,
  /// or, with another `position`, when it is there only once that is written.
  private func read(
    _ position: inout LogPosition, _ bytesQueue: inout QueueID, of handle: LeaseHandle,
    _ window: borrowing Mutex<ReadWindow>
  ) throws(LogError) -> StoredMessage? {
    while true {
      let (place, queue) = (position, bytesQueue)
      do throws(LogError) {
        return try stored(at: place, of: queue, handle.message, window)
      } catch {
        // Compaction may have moved it and removed the segment.
        guard case .system(let cause) = error, cause.isNotFound else { throw error }
        guard let now = look({ $0.resident(handle) }) else { return nil }
        guard now.position != position.packed else { throw error }
        (position, bytesQueue) = (LogPosition(packed: now.position), now.bytesQueue)
        guard shared.withLock({ $0.tail.isWritten(position) }) else { return nil }
      }
    }
  }
}
