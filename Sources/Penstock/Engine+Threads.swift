// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

// Four threads per store. Each is a loop around one step, so that a test can run the steps itself.

extension Engine {
  /// How long the log must be idle before a heartbeat frame witnesses the last commit (L8).
  static let heartbeatDelay: UInt64 = 100_000_000
  /// How long to wait before a full file system is tried again.
  static let fullDiskRetry: UInt64 = 1_000_000_000
  /// How often to look whether the file system is still far from full, while there is a backlog.
  static let spaceCheck: UInt64 = 5_000_000_000

  func start() throws(SystemError) {
    var threads: [SystemThread] = []
    do throws(SystemError) {
      threads.append(try SystemThread(name: "penstock-read") { self.readerLoop() })
      threads.append(try SystemThread(name: "penstock-time") { self.schedulerLoop() })
      threads.append(try SystemThread(name: "penstock-prep") { self.preparerLoop() })
      // The writer outlives the others and closes the store.
      let others = threads
      _ = try SystemThread(name: "penstock-log") {
        self.writerLoop()
        self.stop(others)
        self.finishClosing()
      }
    } catch {
      stop(threads)
      throw error
    }
  }

  private func stop(_ threads: [SystemThread]) {
    isStopping.store(true, ordering: .releasing)
    for bell in [readerBell, schedulerBell, preparerBell] { bell.ring() }
    for thread in threads { thread.join() }
  }

  private var stopping: Bool { isStopping.load(ordering: .acquiring) }

  // MARK: Writing

  private func writerLoop() {
    while true {
      if writerStep() { continue }
      let (isOver, isIdle) = shared.withLock { shared -> (Bool, Bool) in
        switch shared.phase {
        case .running: return (false, shared.tail.needsHeartbeat)
        // A command may have been taken between the step and the close.
        case .closing: return (!shared.tail.hasBatches, false)
        case .failed, .closed: return (false, false)
        }
      }
      if isOver { return sealAndStop() }
      if isClosingAfterFailure { return }
      if isIdle {
        if !writerBell.wait(nanoseconds: Self.heartbeatDelay) { heartbeat() }
      } else {
        writerBell.wait()
      }
    }
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
      for batch in batches { shared.tail.wrote(batch) }
      releaseAnswers(&shared, &actions)
      retryWaitingForRoom(&shared, &actions)
    }
    guard batches.contains(where: { $0.isSynced }) else { return true }
    do throws(SystemError) {
      let lsn = try log.sync()
      critical { shared, actions in
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

  private func readerLoop() {
    while true {
      if let job = readJobs.withLock({ $0.popFirst() }) {
        read(job)
      } else if stopping {
        return
      } else {
        readerBell.wait()
      }
    }
  }

  // MARK: Time

  private func schedulerLoop() {
    while !stopping {
      let next = schedulerStep()
      guard next.milliseconds != .max else {
        schedulerBell.wait()
        continue
      }
      let (delay, overflow) = next.milliseconds.subtractingReportingOverflow(now.milliseconds)
      if overflow || delay > 0 {
        // A day at most: the sum in nanoseconds stays small, and looking once more costs nothing.
        let milliseconds = overflow ? 86_400_000 : min(delay, 86_400_000)
        _ = schedulerBell.wait(nanoseconds: UInt64(milliseconds) * 1_000_000)
      }
    }
  }

  /// Does what time has brought: ended leases, ended waits, ended retention. Returns when to look
  /// again.
  func schedulerStep() -> Timestamp {
    var next = Timestamp(milliseconds: .max)
    critical { shared, actions in
      while let waiter = shared.waiters.takeExpired(at: shared.state.time) {
        actions.call(waiter.completion, .success([]))
      }
      if case .running = shared.phase, let entry = shared.state.nextExpired() {
        if case .ready = shared.tail.makeRoom(
          Self.smallRecordSize, keepingReserve: false, keepingDeletes: true)
        {
          _ = append(entry, synced: false, &shared)
          // Receives of the queue were held back while it had expired messages in front.
          retryReceives(&shared, &actions)
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

  private func preparerLoop() {
    while !stopping {
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
      guard isNeeded else {
        if looksAgain {
          _ = preparerBell.wait(nanoseconds: Self.spaceCheck)
        } else {
          preparerBell.wait()
        }
        continue
      }
      if !preparerStep(), !stopping {
        _ = preparerBell.wait(nanoseconds: Self.fullDiskRetry)
      }
    }
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
      if isNews { options.log?("\(PenstockError.full) (\(error))") }
      critical { shared, actions in retryWaitingForRoom(&shared, &actions) }
      return false
    }
    var wasShort = false
    critical { shared, actions in
      wasShort = shared.tail.isShortOfSpace
      shared.tail.prepared()
      retryWaitingForRoom(&shared, &actions)
    }
    if wasShort { options.log?("there is space again: sends are taken") }
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

  private func sealAndStop() {
    do throws(SystemError) { try log.seal() } catch { fail("sealing the log", error) }
  }

  private func finishClosing() {
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
