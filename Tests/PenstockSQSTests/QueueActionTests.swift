// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import Testing

private let noQueue = "The specified queue does not exist."
private let nameRule =
  "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"

private func noSuchQueue(_ rule: String, _ action: String, _ body: String) -> Refusal {
  Refusal(
    rule, action, body, 400, "com.amazonaws.sqs#QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue", noQueue)
}

private func badValue(_ name: String, _ value: String) -> Refusal {
  Refusal(
    "\(name)=\(value)", "SetQueueAttributes",
    #"{"QueueUrl":"$Q","Attributes":{"\#(name)":"\#(value)"}}"#, 400,
    "com.amazonaws.sqs#InvalidAttributeValue", "InvalidAttributeValue",
    "Invalid value for the parameter \(name).")
}

private func badName(_ name: String, _ value: String, _ text: String? = nil) -> Refusal {
  Refusal(
    "\(name)=\(value)", "SetQueueAttributes",
    #"{"QueueUrl":"$Q","Attributes":{"\#(name)":"\#(value)"}}"#, 400,
    "com.amazonaws.sqs#InvalidAttributeName", "InvalidAttributeName",
    text ?? "Unknown Attribute \(name).")
}

@Suite struct QueueRefusals {
  static let requests: [Refusal] = [
    Refusal("array", "ListQueues", "[]", malformed: "Start of list found where not expected"),
    Refusal(
      "string", "ListQueues", "\"x\"",
      malformed: "Unrecognized collection type class java.lang.String"),
    Refusal("broken JSON", "ListQueues", "{", malformed: nil),
    Refusal(
      "number for a string", "CreateQueue", #"{"QueueName":1}"#,
      malformed: "NUMBER_VALUE can not be converted to a String"),
    Refusal(
      "true for a string", "CreateQueue", #"{"QueueName":true}"#,
      malformed: "TRUE_VALUE can not be converted to a String"),
    Refusal(
      "list for a string", "CreateQueue", #"{"QueueName":[]}"#,
      malformed: "Start of list found where not expected"),
    Refusal(
      "map for a string", "CreateQueue", #"{"QueueName":{}}"#,
      malformed: "Start of structure or map found where not expected."),
    Refusal(
      "string for a map", "CreateQueue", #"{"QueueName":"x","Attributes":"y"}"#,
      malformed: "Unrecognized collection type class java.lang.String"),
    Refusal(
      "list for a map", "CreateQueue", #"{"QueueName":"x","Attributes":[]}"#,
      malformed: "Start of list found where not expected"),
    Refusal(
      "number in a map", "CreateQueue", #"{"QueueName":"x","Attributes":{"DelaySeconds":1}}"#,
      malformed: "NUMBER_VALUE can not be converted to a String"),
    Refusal(
      "string for an integer", "ListQueues", #"{"MaxResults":"1"}"#,
      malformed: "STRING_VALUE can not be converted to an Integer"),
    Refusal(
      "fraction for an integer", "ListQueues", #"{"MaxResults":1.5}"#,
      malformed: "NUMBER_VALUE can not be converted to an Integer"),
    Refusal(
      "giant for an integer", "ListQueues", #"{"MaxResults":99999999999999999999}"#,
      malformed: "NUMBER_VALUE can not be converted to an Integer"),
    Refusal(
      "string for a list", "GetQueueAttributes", #"{"QueueUrl":"$Q","AttributeNames":"All"}"#,
      malformed: "Unrecognized collection type class java.lang.String"),
    Refusal(
      "wrong type before missing queue", "SendMessage", #"{"DelaySeconds":"1"}"#,
      malformed: "STRING_VALUE can not be converted to an Integer"),
    Refusal(
      "unknown action", "Frobnicate", "{}", 400,
      "com.amazon.coral.service#UnknownOperationException", "InvalidAction"),
    noSuchQueue("tags without a queue", "TagQueue", "{}"),
    Refusal("no tags", "TagQueue", #"{"QueueUrl":"$Q"}"#, missing: "Tags"),
    Refusal(
      "empty tag key", "TagQueue", #"{"QueueUrl":"$Q","Tags":{"":"x"}}"#, invalid: tagLength),
    Refusal(
      "tag key with a strange character", "TagQueue", #"{"QueueUrl":"$Q","Tags":{"a!":"x"}}"#,
      invalid: "Tag keys may only contain unicode letters, digits, whitespace, or one of these "
        + "symbols: _ . : / = + - @"),
    Refusal(
      "reserved tag key", "TagQueue", #"{"QueueUrl":"$Q","Tags":{"AWS:a":"x"}}"#,
      invalid: "Tag keys must not start with aws:, which is reserved."),
    Refusal("no keys", "UntagQueue", #"{"QueueUrl":"$Q","TagKeys":[]}"#, invalid: tagLength),
    Refusal("no label", "AddPermission", #"{"QueueUrl":"$Q"}"#, missing: "Label"),
    Refusal(
      "unknown label", "RemovePermission", #"{"QueueUrl":"$Q","Label":"l"}"#,
      invalid: "Value l for parameter Label is invalid. Reason: can't find label."),
    Refusal(
      "no name", "CreateQueue", "{}",
      invalid: "Value for parameter QueueName is invalid. Reason: Must specify a queue name."),
    Refusal(
      "empty name", "CreateQueue", #"{"QueueName":""}"#,
      invalid: "Queue name cannot be empty"),
    Refusal("bad name", "CreateQueue", #"{"QueueName":"a b"}"#, invalid: nameRule),
    Refusal("fifo name", "CreateQueue", #"{"QueueName":"a.fifo"}"#, invalid: nameRule),
    Refusal(
      "fifo without its suffix", "CreateQueue",
      #"{"QueueName":"a","Attributes":{"FifoQueue":"True"}}"#,
      invalid: "The name of a FIFO queue can only include alphanumeric characters, hyphens, or "
        + "underscores, must end with .fifo suffix and be 1 to 80 in length"),
    Refusal(
      "bad tags at creation", "CreateQueue", #"{"QueueName":"a","tags":{"a?":"b"}}"#,
      invalid: "Tag keys may only contain unicode letters, digits, whitespace, or one of these "
        + "symbols: _ . : / = + - @"),
    noSuchQueue("no such name", "GetQueueUrl", #"{"QueueName":"nope"}"#),
    noSuchQueue(
      "other owner", "GetQueueUrl",
      #"{"QueueName":"q","QueueOwnerAWSAccountId":"111111111111"}"#),
    noSuchQueue("no URL", "SendMessage", #"{"MessageBody":"x"}"#),
    noSuchQueue("empty URL", "DeleteQueue", #"{"QueueUrl":""}"#),
    noSuchQueue("null URL", "DeleteQueue", #"{"QueueUrl":null}"#),
    noSuchQueue("other account", "PurgeQueue", #"{"QueueUrl":"http://h/111111111111/q"}"#),
    noSuchQueue("no URL at all", "ReceiveMessage", #"{"QueueUrl":"::::"}"#),
    Refusal(
      "MaxResults 0", "ListQueues", #"{"MaxResults":0}"#,
      invalid: "Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer "
        + "between 1 and 1000."),
    Refusal(
      "bad token", "ListQueues", #"{"MaxResults":1,"NextToken":"x"}"#,
      invalid: "Invalid or expired next token."),
    Refusal(
      "attributes missing", "SetQueueAttributes", #"{"QueueUrl":"$Q"}"#,
      missing: "Attribute.Name"),
    Refusal(
      "unknown attribute asked for", "GetQueueAttributes",
      #"{"QueueUrl":"$Q","AttributeNames":["Colour"]}"#, 400,
      "com.amazonaws.sqs#InvalidAttributeName", "InvalidAttributeName",
      "Unknown Attribute Colour."),
  ]

  static let attributes: [Refusal] =
    [
      ("VisibilityTimeout", ["-1", "43201", "", " 1", "+1", "1.0", "x", "99999999999999999999"]),
      ("DelaySeconds", ["901", "-1"]), ("MaximumMessageSize", ["1023", "1048577"]),
      ("MessageRetentionPeriod", ["59", "1209601"]), ("ReceiveMessageWaitTimeSeconds", ["21"]),
      ("SqsManagedSseEnabled", ["yes", ""]), ("KmsDataKeyReusePeriodSeconds", ["59", "86401"]),
    ].flatMap { name, values in values.map { badValue(name, $0) } } + [
      badName("Colour", "x"), badName("QueueArn", "x"), badName("CreatedTimestamp", "1"),
      badName("ApproximateNumberOfMessages", "1"), badName("All", "x"),
      badName("FifoQueue", "true"), badName("FifoQueue", "false"),
      badName("ContentBasedDeduplication", "false"),
      badName(
        "DeduplicationScope", "queue",
        "You can specify the DeduplicationScope only when FifoQueue is set to true."),
      badName(
        "FifoThroughputLimit", "perQueue",
        "You can specify the FifoThroughputLimit only when FifoQueue is set to true."),
      Refusal(
        "two encryptions", "SetQueueAttributes",
        #"{"QueueUrl":"$Q","Attributes":{"SqsManagedSseEnabled":"true","KmsMasterKeyId":"k"}}"#,
        400, "com.amazonaws.sqs#InvalidAttributeName", "InvalidAttributeName",
        "You can use one type of server-side encryption (SSE) at one time. You can either enable "
          + "KMS SSE or SQS SSE."),
      Refusal(
        "policy that is none", "SetQueueAttributes",
        #"{"QueueUrl":"$Q","Attributes":{"Policy":"{}"}}"#,
        400, "com.amazonaws.sqs#InvalidAttributeValue", "InvalidAttributeValue",
        "Invalid value for the parameter Policy. Reason: the policy: Statement is missing"),
    ]

  static let tagLength = "Tag keys must be between 1 and 128 characters in length."

  @Test func everyRuleHasItsCodeAndText() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      for refusal in Self.requests + Self.attributes { await refusal.check(fixture) }
    }
  }
}

@Suite struct QueueActions {
  @Test func createdQueueIsFoundByNameAndListed() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let url = ServiceFixture.base + "q"
      let found = await fixture.call("GetQueueUrl", #"{"QueueName":"q"}"#)
      #expect(found["QueueUrl"] == url)
      let list = await fixture.call("ListQueues", "")
      #expect(list.object["QueueUrls"] as? [String] == [url])
      #expect(list["NextToken"] == nil)
      let other = await fixture.call("ListQueues", "{}", headers: ["host": "other:1"])
      #expect(other.object["QueueUrls"] as? [String] == ["http://other:1/000000000000/q"])
    }
  }

  @Test func hostileHostHeaderStaysOutOfURLs() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let answer = await fixture.call(
        "GetQueueUrl", #"{"QueueName":"q"}"#, headers: ["host": "evil/\"<x>"])
      #expect(answer["QueueUrl"] == "http://localhost/000000000000/q")
    }
  }

  @Test func listsComeInPages() async throws {
    try await ServiceFixture.run { fixture in
      #expect(await fixture.call("ListQueues", "{}").text == "{}")
      for name in ["b1", "a1", "b2", "b3"] {
        _ = await fixture.call("CreateQueue", #"{"QueueName":"\#(name)"}"#)
      }
      let first = await fixture.call(
        "ListQueues", #"{"QueueNamePrefix":"b","MaxResults":2}"#)
      #expect(
        first.object["QueueUrls"] as? [String]
          == ["b1", "b2"].map { ServiceFixture.base + $0 })
      let token = try #require(first["NextToken"])
      let second = await fixture.call(
        "ListQueues", #"{"QueueNamePrefix":"b","MaxResults":5,"NextToken":"\#(token)"}"#)
      #expect(second.object["QueueUrls"] as? [String] == [ServiceFixture.base + "b3"])
      #expect(second["NextToken"] == nil)
      let changed = await fixture.call("ListQueues", #"{"NextToken":"\#(token)"}"#)
      #expect(changed.error == "InvalidParameterValueException")
    }
  }

  @Test func creationComparesWithCurrentValues() async throws {
    try await ServiceFixture.runWithQueue(#"{"VisibilityTimeout":"10"}"#) { fixture in
      func create(_ value: String) async -> Answer {
        await fixture.call(
          "CreateQueue", #"{"QueueName":"q","Attributes":{"VisibilityTimeout":"\#(value)"}}"#)
      }
      #expect(await create("10").status == 200)
      let set = await fixture.call(
        "SetQueueAttributes", #"{"QueueUrl":"$Q","Attributes":{"VisibilityTimeout":"20"}}"#)
      #expect(set.status == 200)
      #expect(set.body.isEmpty)
      #expect(await create("20").status == 200)
      let conflict = await create("10")
      #expect(conflict["__type"] == "com.amazonaws.sqs#QueueNameExists")
      #expect(conflict.headers["x-amzn-query-error"] == "QueueAlreadyExists;Sender")
      #expect(
        conflict.message
          == "A queue already exists with the same name and a different value for attribute "
          + "VisibilityTimeout")
    }
  }

  @Test func allAttributesAreTheRecordedSet() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let none = await fixture.call("GetQueueAttributes", #"{"QueueUrl":"$Q"}"#)
      #expect(none.text == "{}")
      let inapplicable = await fixture.call(
        "GetQueueAttributes", #"{"QueueUrl":"$Q","AttributeNames":["Policy","FifoQueue"]}"#)
      #expect(inapplicable.text == "{}")
      let answer = await fixture.call(
        "GetQueueAttributes", #"{"QueueUrl":"q","AttributeNames":["All"]}"#)
      let values = try #require(answer.object["Attributes"] as? [String: String])
      #expect(
        Set(values.keys) == [
          "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed",
          "ApproximateNumberOfMessagesNotVisible", "CreatedTimestamp", "DelaySeconds",
          "LastModifiedTimestamp", "MaximumMessageSize", "MessageRetentionPeriod", "QueueArn",
          "ReceiveMessageWaitTimeSeconds", "SqsManagedSseEnabled", "VisibilityTimeout",
        ])
      #expect(values["QueueArn"] == "arn:aws:sqs:us-east-1:000000000000:q")
      #expect(values["SqsManagedSseEnabled"] == "false")
      #expect(values["MaximumMessageSize"] == "1048576")
      #expect(values["VisibilityTimeout"] == "30")
      #expect(values["CreatedTimestamp"]?.count == 10)
    }
  }

  @Test func emptyValuesTakeAttributesAway() async throws {
    let attributes = """
      {"Policy":"","RedrivePolicy":"","RedriveAllowPolicy":"","KmsMasterKeyId":"",\
      "KmsDataKeyReusePeriodSeconds":"300","SqsManagedSseEnabled":"False"}
      """
    try await ServiceFixture.runWithQueue(attributes) { fixture in
      let answer = await fixture.call(
        "SetQueueAttributes", #"{"QueueUrl":"$Q","Attributes":\#(attributes)}"#)
      #expect(answer.status == 200)
    }
  }

  @Test func actionsWithoutOutputAnswerNothing() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      for action in ["PurgeQueue", "DeleteQueue"] {
        let answer = await fixture.call(action, #"{"QueueUrl":"$Q"}"#)
        #expect(answer.status == 200)
        #expect(answer.body.isEmpty)
        #expect(answer.headers["content-type"] == "application/x-amz-json-1.0")
      }
      let gone = await fixture.call("DeleteQueue", #"{"QueueUrl":"$Q"}"#)
      #expect(gone.error == "QueueDoesNotExist")
    }
  }
}

@Suite struct WireProtocols {
  private func answer(
    _ fixture: ServiceFixture, _ method: String, _ target: String, _ headers: [String: String],
    _ body: String = ""
  ) async -> Answer {
    await fixture.send(
      SQSRequest(
        method: method, target: target, headers: TestHeaders(values: headers),
        body: Array(body.utf8), remoteAddress: "127.0.0.1"))
  }

  @Test func contentTypeWinsOverTarget() async throws {
    try await ServiceFixture.run { fixture in
      let target = "AmazonSQS.ListQueues"
      for type in [
        "application/x-amz-json-1.0", "Application/X-AMZ-json-1.1; charset=utf-8", "",
        "text/plain",
      ] {
        let answer = await answer(
          fixture, "POST", "/000000000000/q", ["content-type": type, "x-amz-target": target],
          "{}")
        #expect(answer.status == 200)
        #expect(answer.headers["content-type"] == "application/x-amz-json-1.0")
      }
      let form = await answer(
        fixture, "POST", "/",
        ["content-type": "application/x-www-form-urlencoded", "x-amz-target": target],
        "Version=1&Action=ListQueues")
      #expect(form.status == 200)
      #expect(form.headers["content-type"] == "text/xml")
      #expect(form.text.contains("<ListQueuesResult/>"))
      let untargeted = await answer(
        fixture, "POST", "/", ["content-type": "application/x-amz-json-1.0"], "{}")
      #expect(untargeted.error == "UnknownOperationException")
    }
  }

  @Test func requestWithoutActionIsNotFound() async throws {
    try await ServiceFixture.run { fixture in
      for (method, target) in [("GET", "/"), ("GET", "/000000000000/q?x=1"), ("POST", "/")] {
        let answer = await answer(fixture, method, target, [:])
        #expect(answer.status == 404)
        #expect(answer.text == "<UnknownOperationException/>")
        #expect(answer.headers["content-type"] == "text/xml")
      }
    }
  }

  @Test func metricsTellWhatTheStoreTakes() async throws {
    try await ServiceFixture.run { fixture in
      let answer = await answer(fixture, "GET", "/penstock/metrics", [:])
      #expect(answer.status == 200)
      #expect(answer.headers["content-type"] == "text/plain; version=0.0.4")
      let lines = answer.text.split(separator: "\n")
      #expect(lines.contains("penstock_set_aside_messages 0"))
      #expect(lines.contains("penstock_damaged_segments 0"))
      #expect(lines.contains("# TYPE penstock_disk_bytes gauge"))
      #expect(lines.allSatisfy { $0.hasPrefix("# ") || $0.split(separator: " ").count == 2 })
    }
  }

  @Test func metricsTellOfEveryQueue() async throws {
    try await ServiceFixture.run { fixture in
      // A name that no request can make, but a program in the same process.
      let odd = try await fixture.store.queue("a\"b\\c\nd")
      let queue = try await fixture.store.queue("orders")
      for text in ["one", "three"] { try await queue.send(text) }
      let lease = try #require(try await queue.receive().first)
      try await lease.delete()
      #expect(try await odd.receive().isEmpty)
      let answer = await answer(fixture, "GET", "/penstock/metrics", [:])
      let lines = answer.text.split(separator: "\n")
      for (name, value) in [
        ("number_of_messages_sent", 2), ("sent_message_size", 8),
        ("number_of_messages_received", 1), ("number_of_messages_deleted", 1),
        ("number_of_empty_receives", 0), ("approximate_number_of_messages_visible", 1),
        ("approximate_number_of_messages_not_visible", 0),
        ("approximate_number_of_messages_delayed", 0),
      ] {
        #expect(lines.contains("penstock_\(name){queue=\"orders\"} \(value)"), "\(name)")
      }
      #expect(lines.contains { $0.hasPrefix("penstock_approximate_age_of_oldest_message{queue=") })
      #expect(lines.contains(#"penstock_number_of_empty_receives{queue="a\"b\\c\nd"} 1"#))
      #expect(lines.contains("penstock_queues 2"))
      #expect(lines.contains("penstock_copied_bytes 0"))
      #expect(lines.contains("penstock_removed_segments 0"))
      // Each metric is explained once, and its values follow.
      let types = lines.filter { $0.hasPrefix("# TYPE ") }
      #expect(Set(types).count == types.count)
      #expect(lines.contains { $0.hasPrefix("penstock_sync_seconds{quantile=\"0.99\"} ") })
    }
  }

  @Test func metricsListSoManyQueuesAndNoMore() async throws {
    try await ServiceFixture.run { fixture in
      for index in 0..<1003 { _ = try await fixture.store.queue("q\(index)") }
      let answer = await answer(fixture, "GET", "/penstock/metrics", [:])
      let lines = answer.text.split(separator: "\n")
      #expect(lines.contains("penstock_queues 1003"))
      let listed = lines.filter { $0.hasPrefix("penstock_number_of_messages_sent{") }
      #expect(listed.count == 1000)
    }
  }

  @Test func unknownActionOfAFormIsEscaped() async throws {
    try await ServiceFixture.run { fixture in
      let answer = await answer(fixture, "GET", "/?Action=%3Cx%3E%26", [:])
      #expect(answer.status == 400)
      #expect(answer.text.contains("<Code>InvalidAction</Code>"))
      #expect(answer.text.contains("The action &lt;x&gt;&amp; is not valid"))
    }
  }

  @Test(arguments: ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "X"])
  func otherMethodsAreRefused(_ method: String) async throws {
    try await ServiceFixture.run { fixture in
      let answer = await answer(fixture, method, "/", ["x-amz-target": "AmazonSQS.ListQueues"])
      #expect(answer.status == 405)
      #expect(answer.headers["allow"] == "GET, POST")
      #expect(answer.body.isEmpty)
    }
  }
}
