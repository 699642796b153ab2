// SPDX-License-Identifier: Apache-2.0
import Logging
import Penstock
import PenstockServer
import ServiceLifecycle
import Testing

/// A program that uses its store while it serves it.
@Suite struct ServingAnOpenStore {
  @Test func whatAClientSendsTheProgramReceives() async throws {
    try await ServerFixture.run { fixture in
      let queue = try await fixture.store.queue("q")
      async let leases = queue.receive(wait: .seconds(60))
      try await fixture.untilWaiting(1)
      let client = try fixture.client()
      let sent = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"from outside"}"#)
      let lease = try #require(try await leases.first)
      #expect(lease.text == "from outside")
      #expect(lease.message.id.description == sent["MessageId"])
      try await lease.delete()
      #expect(try await queue.describe().counts.total == 0)
    }
  }

  @Test func whatTheProgramSendsAClientReceives() async throws {
    try await ServerFixture.run { fixture in
      let queue = try await fixture.store.queue("q")
      let poll = Task {
        try await ServerFixture.onThread {
          try fixture.client().call(
            "ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#
          ).text
        }
      }
      try await fixture.untilWaiting(1)
      let id = try await queue.send("from inside")
      let answer = try await poll.value
      #expect(answer.contains("\"Body\":\"from inside\""))
      #expect(answer.contains("\"MessageId\":\"\(id)\""))
    }
  }

  @Test func aHandleOfOneDoorIsGoodAtTheOther() async throws {
    try await ServerFixture.run { fixture in
      let queue = try await fixture.store.queue("q")
      let client = try fixture.client()
      try await queue.send("for the client")
      let received = try client.call("ReceiveMessage", #"{"QueueUrl":"q"}"#)
      let message = try #require((received.object["Messages"] as? [[String: Any]])?.first)
      let text = try #require(message["ReceiptHandle"] as? String)
      let handle = try #require(fixture.store.leaseHandle(from: text))
      for result in try await queue.delete([handle]) { try result.get() }

      try await queue.send("for the program")
      let lease = try #require(try await queue.receive().first)
      #expect(lease.text == "for the program")
      let own = fixture.store.receiptHandle(for: lease.message.handle)
      let answer = try client.call(
        "DeleteMessage", #"{"QueueUrl":"q","ReceiptHandle":"\#(own)"}"#)
      #expect(answer.status == 200)
      #expect(try await queue.describe().counts.total == 0)
    }
  }

  /// SQS has no other bodies than text; the digest tells a client that this one was none.
  @Test func aBodyThatIsNoTextIsShownAsTextWithTheDigestOfItsBytes() async throws {
    try await ServerFixture.run { fixture in
      try await fixture.store.queue("q").send([0x61, 0xff, 0x62])
      let answer = try fixture.client().call("ReceiveMessage", #"{"QueueUrl":"q"}"#)
      let message = try #require((answer.object["Messages"] as? [[String: Any]])?.first)
      #expect(message["Body"] as? String == "a\u{fffd}b")
      #expect(message["MD5OfBody"] as? String == "45b560b6678f428bcc2226dbdf5f23dd")
    }
  }

  @Test func theStoreOutlivesItsServers() async throws {
    try await ServerFixture.run { fixture in
      let queue = try await fixture.store.queue("q")
      await fixture.server.stop()
      try await queue.send("while nobody listens")
      let second = try await PenstockServer.start(serving: fixture.store, port: fixture.port)
      let third = try await PenstockServer.start(serving: fixture.store, port: 0)
      #expect(second.port == fixture.port)
      #expect(second.endpoint == "http://127.0.0.1:\(fixture.port)")
      for server in [second, third] {
        let answer = try HTTPClient(port: server.port).call(
          "ReceiveMessage", #"{"QueueUrl":"q","VisibilityTimeout":0}"#)
        #expect(answer.text.contains("while nobody listens"))
      }
      await second.stop()
      #expect(try HTTPClient(port: third.port).call("ListQueues", "{}").status == 200)
      await third.stop()
    }
  }

  @Test func aServerWhoseStoreIsClosedRefusesUntilItStops() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      try client.write(
        HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#))
      try await fixture.untilWaiting(1)
      try await fixture.store.close()
      #expect(try client.readResponse().text == "{}")
      let answer = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"too late"}"#)
      #expect(answer.status == 503)
      #expect(answer.error == "ServiceUnavailable")
    }
  }

  /// This server ends with the process of the tests.
  @Test func aServerNobodyHoldsGoesOn() async throws {
    try await ServerFixture.run { fixture in
      let port = try await PenstockServer.start(serving: fixture.store, port: 0).port
      #expect(try HTTPClient(port: port).call("ListQueues", "{}").status == 200)
    }
  }
}

@Suite struct StartingAndStopping {
  @Test func aTakenPortIsNamed() async throws {
    try await ServerFixture.run { fixture in
      let error = await #expect(throws: PenstockServer.StartError.self) {
        try await PenstockServer.start(serving: fixture.store, port: fixture.port)
      }
      let text = try #require(error?.description)
      #expect(text.hasPrefix("cannot listen on 127.0.0.1 port \(fixture.port): "))
      // Nothing has happened to the store, or to the server that has the port.
      #expect(try fixture.clientWithQueue().call("ListQueues", "{}").status == 200)
    }
  }

  @Test(arguments: [-1, 65_536, Int.max])
  func aNumberThatIsNoPortIsRefused(_ port: Int) async throws {
    try await ServerFixture.run { fixture in
      let error = await #expect(throws: PenstockServer.StartError.self) {
        try await PenstockServer.start(serving: fixture.store, port: port)
      }
      #expect(error?.description.contains("ports end at 65535") == true)
    }
  }

  @Test func everyStopReturnsWhenTheServerHasStopped() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      try client.write(
        HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#))
      try await fixture.untilWaiting(1)
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        for _ in 0..<8 {
          tasks.addTask {
            await fixture.server.stop()
            // Whoever returns first: nobody waits in the store any more, and nobody gets in.
            try await fixture.untilWaiting(0)
            #expect(throws: HTTPClient.Failure.self) { try fixture.client() }
          }
        }
        try await tasks.waitForAll()
      }
      #expect(try client.readResponse().text == "{}")
      await fixture.server.stop()
    }
  }
}

@Suite struct ServiceGroups {
  private static var logger: Logger {
    Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
  }

  @Test func aGracefulShutdownStopsTheServer() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let group = ServiceGroup(services: [fixture.server], logger: Self.logger)
      async let ended: Void = group.run()
      try client.write(
        HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#))
      try await fixture.untilWaiting(1)
      await group.triggerGracefulShutdown()
      try await ended
      #expect(try client.readResponse().text == "{}")
      #expect(throws: HTTPClient.Failure.self) { try fixture.client() }
      // The store is as open as before.
      try await #require(fixture.store.existingQueue("q")).send("after")
    }
  }

  @Test func cancellationStopsTheServer() async throws {
    try await ServerFixture.run { fixture in
      let serving = Task { await fixture.server.run() }
      serving.cancel()
      await serving.value
      #expect(throws: HTTPClient.Failure.self) { try fixture.client() }
    }
  }

  @Test func runReturnsWhenSomebodyElseStopsTheServer() async throws {
    try await ServerFixture.run { fixture in
      async let served: Void = fixture.server.run()
      await fixture.server.stop()
      await served
      await fixture.server.run()
    }
  }
}
