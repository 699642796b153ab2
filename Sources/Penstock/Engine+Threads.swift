// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// One of the five threads of a store. Each is a loop around turns, so that a simulation can take
/// the turns itself, in an order of its own: see `StoreDriver`.
package enum Worker: Int, CaseIterable, Sendable {
  case writer, reader, scheduler, preparer, keeper
}

/// What a worker does after a turn.
enum Rest {
  /// The next turn.
  case none
  /// It sleeps until its bell rings.
  case untilRung
  /// The same, but not for longer.
  case atMost(nanoseconds: UInt64)
  case forGood

  func orSooner(_ other: Rest) -> Rest {
    switch (self, other) {
    case (.none, _), (_, .none): .none
    case (.untilRung, _): other
    case (_, .untilRung): self
    case (.atMost(let a), .atMost(let b)): .atMost(nanoseconds: min(a, b))
    case (.forGood, _), (_, .forGood): .forGood
    }
  }
}

extension Engine {
  /// How long the log must be idle before a heartbeat frame witnesses the last commit (L8).
  static let heartbeatDelay: UInt64 = 100_000_000
  /// How long to wait before a full file system is tried again.
  static let fullDiskRetry: UInt64 = 1_000_000_000
  /// How long a thread sleeps at most when it waits for a time.
  static let longestRest: UInt64 = 60_000_000_000
  /// How often to look whether the file system is still far from full, while there is a backlog.
  static let spaceCheck: UInt64 = 5_000_000_000

  func start() throws(SystemError) {
    var threads: [SystemThread] = []
    do throws(SystemError) {
      let workers: [(Worker, String)] = [
        (.reader, "read"), (.scheduler, "time"), (.preparer, "prep"), (.keeper, "keep"),
      ]
      for (worker, name) in workers {
        threads.append(try SystemThread(name: "penstock-\(name)") { self.loop(worker) })
      }
      // The writer outlives the others and closes the store.
      let others = threads
      _ = try SystemThread(name: "penstock-log") {
        self.loop(.writer)
        self.stopOthers()
        for thread in others { thread.join() }
        self.finishClosing()
      }
    } catch {
      stopOthers()
      for thread in threads { thread.join() }
      throw error
    }
  }

  /// Tells every worker but the writer to end.
  func stopOthers() {
    isStopping.store(true, ordering: .releasing)
    for bell in [readerBell, schedulerBell, preparerBell, keeperBell] { bell.ring() }
  }

  var stopping: Bool { isStopping.load(ordering: .acquiring) }

  func bell(of worker: Worker) -> Doorbell {
    switch worker {
    case .writer: writerBell
    case .reader: readerBell
    case .scheduler: schedulerBell
    case .preparer: preparerBell
    case .keeper: keeperBell
    }
  }

  private func loop(_ worker: Worker) {
    let bell = bell(of: worker)
    var hasRung = true
    while true {
      switch turn(of: worker, hasRung: hasRung) {
      case .none: hasRung = true
      case .untilRung:
        bell.wait()
        hasRung = true
      case .atMost(let nanoseconds):
        // Threads do not notice that the machine was suspended; the store's clock does.
        hasRung = bell.wait(nanoseconds: min(nanoseconds, Self.longestRest))
      case .forGood: return
      }
    }
  }

  /// Does one piece of a worker's work.
  ///
  /// - Parameter hasRung: false when the time of the rest before is over and no bell ended it.
  func turn(of worker: Worker, hasRung: Bool) -> Rest {
    switch worker {
    case .writer: writerTurn(hasRung)
    case .reader: readerTurn()
    case .scheduler: schedulerTurn()
    case .preparer: preparerTurn()
    case .keeper: keeperTurn()
    }
  }

  // MARK: Writing

  private func writerTurn(_ hasRung: Bool) -> Rest {
    if writerStep() {
      // Those just answered go first: what they ask for next comes into the same commit.
      SystemThread.yield()
      return .none
    }
    let (isOver, isIdle) = shared.withLock { shared -> (Bool, Bool) in
      switch shared.phase {
      case .running: return (false, shared.tail.needsHeartbeat)
      // A command may have been taken between the step and the close.
      case .closing: return (!shared.tail.hasBatches, false)
      case .failed, .closed: return (false, false)
      }
    }
    if isOver {
      sealLog()
      return .forGood
    }
    if isClosingAfterFailure { return .forGood }
    guard isIdle else { return .untilRung }
    if hasRung { return .atMost(nanoseconds: Self.heartbeatDelay) }
    heartbeat()
    return .none
  }

  /// Writes and syncs what was appended, and releases the answers. False when there was nothing.
  func writerStep() -> Bool {
    let batches = shared.withLock { shared -> [Batch] in
      if case .failed = shared.phase { return [] }
      return shared.tail.takeBatches()
    }
    guard !batches.isEmpty else { return false }
    do throws(SystemError) {
      for batch in batches { try log.write(batch) }
    } catch {
      fail("writing the log", error)
      return true
    }
    critical { shared, actions in
      for batch in batches {
        shared.metrics.records.record(UInt64(batch.count))
        shared.metrics.bytes += UInt64(batch.length)
        shared.tail.wrote(batch)
        guard batch.segment != shared.writtenSegment else { continue }
        // The one before it is sealed: its index can be written, and a checkpoint may be due.
        shared.writtenSegment = batch.segment
        actions.ringsKeeper = true
        if options.onEvent != nil { shared.events.append(.segmentBegun(number: batch.segment)) }
      }
      releaseAnswers(&shared, &actions)
      retryWaitingForRoom(&shared, &actions)
    }
    guard batches.contains(where: { $0.isSynced }) else { return true }
    do throws(SystemError) {
      let began = clock.monotonicNanoseconds()
      let lsn = try log.sync()
      critical { shared, actions in
        let took = shared.entered > began ? shared.entered - began : 0
        shared.metrics.syncs.record(took)
        let duration = Duration.nanoseconds(Int64(clamping: took))
        if options.onEvent != nil, duration > options.slowSync {
          shared.events.append(.slowSync(duration))
        }
        shared.tail.synced(upTo: lsn)
        releaseAnswers(&shared, &actions)
      }
    } catch {
      fail("syncing the log", error)
    }
    return true
  }

  private func heartbeat() {
    let batch = shared.withLock { shared -> Batch? in
      guard case .running = shared.phase else { return nil }
      return shared.tail.takeHeartbeat()
    }
    guard let batch else { return }
    do throws(SystemError) {
      try log.write(batch)
      critical { shared, _ in shared.tail.wrote(batch) }
    } catch {
      fail("writing the log", error)
    }
  }

  // MARK: Reading

  private func readerTurn() -> Rest {
    guard let job = readJobs.withLock({ $0.popFirst() }) else {
      return stopping ? .forGood : .untilRung
    }
    switch job {
    case .messages(let job): read(job, readerWindow)
    case .draw(let draw): self.draw(draw)
    case .look(let look): look(self)
    }
    return .none
  }

  // MARK: Time

  private func schedulerTurn() -> Rest {
    if stopping { return .forGood }
    let next = schedulerStep()
    if next.milliseconds == .max { return .untilRung }
    let (delay, overflow) = next.milliseconds.subtractingReportingOverflow(now.milliseconds)
    if !overflow, delay <= 0 { return .none }
    // A day at most: the sum in nanoseconds stays small, and looking once more costs nothing.
    let milliseconds = overflow ? 86_400_000 : min(delay, 86_400_000)
    return .atMost(nanoseconds: UInt64(milliseconds) * 1_000_000)
  }

  /// Does what time has brought: ended leases, ended waits, ended retention. Returns when to look
  /// again.
  func schedulerStep() -> Timestamp {
    var next = Timestamp(milliseconds: .max)
    critical { shared, actions in
      while let waiter = shared.waiters.takeExpired(at: shared.state.time) {
        shared.state.countEmptyReceive(waiter.queue)
        actions.call(waiter.completion, .success([]))
      }
      if case .running = shared.phase, let entry = shared.state.nextExpired() {
        if case .ready = shared.tail.makeRoom(Self.smallRecordSize, for: .lease) {
          _ = append(entry, synced: false, &shared)
          // Receives, or groups, were held back while there were expired messages in front.
          retryReceives(&shared, &actions)
          serveWaiters(on: entry.queue, &shared, &actions)
        } else {
          shared.isExpiryWaitingForRoom = true
        }
      }
      next = shared.nextLook
      shared.scheduledAt = next
    }
    return next
  }

  // MARK: Preparing

  private func preparerTurn() -> Rest {
    if stopping { return .forGood }
    let hasAmpleSpace = hasAmpleSpace()
    let (isNeeded, looksAgain) = shared.withLock { shared -> (Bool, Bool) in
      guard case .running = shared.phase else { return (false, false) }
      let messages = shared.state.liveCount
      shared.hasAmpleSpace = hasAmpleSpace
      shared.tail.keepReserve(messages: hasAmpleSpace ? 0 : messages)
      if shared.tail.needsSegment { return (true, false) }
      // Enough is ready, so nothing is short; the next need will ring and find out anew.
      shared.tail.isShortOfSpace = false
      return (false, hasAmpleSpace && shared.tail.wantsReserve(messages: messages))
    }
    guard isNeeded else { return looksAgain ? .atMost(nanoseconds: Self.spaceCheck) : .untilRung }
    return preparerStep() || stopping ? .none : .atMost(nanoseconds: Self.fullDiskRetry)
  }

  /// A file system that does not say is taken for nearly full.
  private func hasAmpleSpace() -> Bool {
    do throws(SystemError) { return try log.hasAmpleSpace() } catch { return false }
  }

  /// Prepares one segment. False when the file system is full.
  func preparerStep() -> Bool {
    do throws(SystemError) {
      guard try log.prepareSegment(isCancelled: { self.stopping }) else { return true }
    } catch {
      // Nothing acknowledged is in a file that is being prepared. A disk that fails to write is not
      // to be trusted all the same; everything else, such as too many open files, may pass.
      guard error.isOutOfSpace || !["pwrite", "fsync", "fdatasync"].contains(error.call) else {
        fail("preparing a segment", error)
        return false
      }
      let isNews = shared.withLock { shared -> Bool in
        defer { shared.tail.isShortOfSpace = true }
        return !shared.tail.isShortOfSpace
      }
      if isNews {
        options.log?("\(PenstockError.full) (\(error))")
        options.onEvent?(.full)
        // What is dead must go now, and that may need a checkpoint.
        keeperBell.ring()
      }
      critical { shared, actions in retryWaitingForRoom(&shared, &actions) }
      return false
    }
    var wasShort = false
    critical { shared, actions in
      wasShort = shared.tail.isShortOfSpace
      shared.tail.prepared()
      retryWaitingForRoom(&shared, &actions)
    }
    if wasShort {
      options.log?("there is space again: sends are taken")
      options.onEvent?(.roomAgain)
    }
    return true
  }

  // MARK: Closing

  /// Refuses what comes from now on, ends waiting receives, and lets the writer finish.
  func close(_ completion: @escaping Completion<Void>) {
    critical { shared, actions in
      switch shared.phase {
      case .running:
        shared.phase = .closing([completion])
        for waiter in shared.waiters.removeAll() { actions.call(waiter.completion, .success([])) }
        retryWaitingForRoom(&shared, &actions)
        actions.ringsWriter = true
      case .closing(let others): shared.phase = .closing(others + [completion])
      case .failed(let error):
        shared.closers.append(completion)
        shared.failure = error
        actions.ringsWriter = true
      case .closed: actions.call(completion, .success(()))
      }
    }
  }

  private var isClosingAfterFailure: Bool { shared.withLock { !$0.closers.isEmpty } }

  private func sealLog() {
    do throws(SystemError) { try log.seal() } catch { fail("sealing the log", error) }
  }

  func finishClosing() {
    // Reads that were under way have been answered: the reader was joined.
    log.close()
    let (completions, error) = shared.withLock { shared -> ([Completion<Void>], PenstockError?) in
      var completions = shared.closers
      shared.closers = []
      if case .closing(let others) = shared.phase { completions += others }
      shared.phase = .closed
      return (completions, shared.failure)
    }
    for completion in completions { completion(error.map { .failure($0) } ?? .success(())) }
  }
}
