// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

/// Does the work of a store's threads, one turn at a time, in the order that its owner chooses, so
/// that a run is a function of its decisions.
///
/// One thread uses the driver and its store. A file system that the owner injected may take turns
/// of other workers in the middle of a call, as other threads would; not in a call of `open`, which
/// may hold a lock.
package final class StoreDriver {
  private enum Phase {
    case ready
    case resting(until: UInt64)
    case busy
    case over
  }

  private let engine: Engine
  /// By worker.
  private var phases = Worker.allCases.map { _ in Phase.ready }

  init(_ engine: Engine) { self.engine = engine }

  /// Workers that have something to do now.
  package var due: [Worker] {
    let now = engine.clock.monotonicNanoseconds()
    return Worker.allCases.filter { worker in
      switch phases[worker.rawValue] {
      case .ready: true
      case .resting(let end): end <= now || engine.bell(of: worker).isRung
      case .busy, .over: false
      }
    }
  }

  /// When the next worker has something to do, by the monotonic clock, if nothing rings before.
  package var nextDue: UInt64? {
    var next: UInt64?
    for case .resting(let end) in phases where end != .max { next = min(next ?? end, end) }
    return next
  }

  /// Whether the store is closed and its directory released.
  package var isOver: Bool { phases.allSatisfy { if case .over = $0 { true } else { false } } }

  /// Takes one turn of a worker; nothing happens unless it is due.
  package func turn(_ worker: Worker) {
    var hasRung = true
    switch phases[worker.rawValue] {
    case .ready: break
    case .resting(let end):
      hasRung = engine.bell(of: worker).take()
      guard hasRung || end <= engine.clock.monotonicNanoseconds() else { return }
    case .busy, .over: return
    }
    phases[worker.rawValue] = .busy
    switch engine.turn(of: worker, hasRung: hasRung) {
    case .none: phases[worker.rawValue] = .ready
    case .untilRung: phases[worker.rawValue] = .resting(until: .max)
    case .atMost(let nanoseconds):
      let end = engine.clock.monotonicNanoseconds().addingReportingOverflow(nanoseconds)
      phases[worker.rawValue] = .resting(until: end.overflow ? .max : end.partialValue)
    case .forGood:
      phases[worker.rawValue] = .over
      if worker == .writer { engine.stopOthers() }
      if isOver { engine.finishClosing() }
    }
  }
}
