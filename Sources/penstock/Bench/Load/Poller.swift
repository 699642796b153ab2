// SPDX-License-Identifier: Apache-2.0
import CEpoll

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Waits until descriptors can be read or written, or it is time.
final class Poller {
  /// Descriptors, as many as `wait` answers.
  private(set) var ready = [Int32](repeating: 0, count: 256)

  #if os(Linux)
    private let poller: Int32
    private let timer: Int32
    private var isSet: UInt64?

    init() throws {
      poller = cepoll_create()
      timer = cepoll_timer()
      guard poller >= 0, timer >= 0, cepoll_set(poller, timer, 1, 0) == 0 else {
        throw LoadError("epoll: \(LoadLoop.error(errno))")
      }
    }

    deinit {
      close(poller)
      close(timer)
    }

    /// Waits for bytes to read, and for room to write if it `writes`.
    func set(_ descriptor: Int32, isNew: Bool, writes: Bool) throws {
      guard cepoll_set(poller, descriptor, isNew ? 1 : 0, writes ? 1 : 0) == 0 else {
        throw LoadError("epoll: \(LoadLoop.error(errno))")
      }
    }

    /// Waits until something is ready or it is `time`, a second at most; answers how many are.
    func wait(until time: UInt64?) throws -> Int {
      if let time, time != isSet {
        isSet = time
        guard cepoll_set_timer(timer, max(1, time)) == 0 else {
          throw LoadError("timer: \(LoadLoop.error(errno))")
        }
      }
      let count = cepoll_wait(poller, &ready, Int32(ready.count), 1000)
      guard count >= 0 else {
        guard errno == EINTR else { throw LoadError("epoll: \(LoadLoop.error(errno))") }
        return 0
      }
      // The timer is one of them, and no connection; read, it is quiet until it is set again.
      if let isSet, ready[..<Int(count)].contains(timer) {
        var times: UInt64 = 0
        _ = read(timer, &times, 8)
        if self.isSet == isSet { self.isSet = nil }
      }
      return Int(count)
    }
  #else
    init() throws { throw LoadError("the load generator needs Linux.") }
    func set(_ descriptor: Int32, isNew: Bool, writes: Bool) throws {}
    func wait(until time: UInt64?) throws -> Int { 0 }
  #endif
}
