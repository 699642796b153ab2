// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import Testing

private func send(_ rule: String, _ members: String, invalid: String) -> Refusal {
  Refusal(
    rule, "SendMessage", #"{"QueueUrl":"$Q","MessageBody":"x",\#(members)}"#, invalid: invalid)
}

private func attribute(_ rule: String, _ attribute: String, invalid: String) -> Refusal {
  send(rule, #""MessageAttributes":{\#(attribute)}"#, invalid: invalid)
}

private let groupRule =
  "MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length."
private let nameRule =
  "Message (user) attributes name can only contain upper and lower score characters, digits, "
  + "periods, hyphens and underscores. "
private let reservedRule =
  "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are "
  + "reserved for internal use. Additionally, they cannot start or end with '.'."
private let batchIDRule =
  "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be "
  + "at most 80 letters long."

@Suite struct MessageRefusals {
  static let sends: [Refusal] = [
    Refusal("no body", "SendMessage", #"{"QueueUrl":"$Q"}"#, missing: "MessageBody"),
    Refusal(
      "empty body", "SendMessage", #"{"QueueUrl":"$Q","MessageBody":""}"#, missing: "MessageBody"
    ),
    Refusal(
      "body over the limit", "SendMessage",
      #"{"QueueUrl":"$Q","MessageBody":"\#(String(repeating: "x", count: 1025))"}"#,
      invalid:
        "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes."),
    Refusal(
      "attributes count", "SendMessage",
      #"{"QueueUrl":"$Q","MessageBody":"\#(String(repeating: "x", count: 1017))","#
        + #""MessageAttributes":{"k":{"DataType":"String","StringValue":"x"}}}"#,
      invalid:
        "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes."),
    send(
      "delay", #""DelaySeconds":901"#,
      invalid:
        "Value 901 for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and "
        + "<= 900."),
    send(
      "empty group", #""MessageGroupId":"""#,
      invalid: "Value  for parameter MessageGroupId is invalid. Reason: \(groupRule)"),
    send(
      "group with a space", #""MessageGroupId":"a b""#,
      invalid: "Value a b for parameter MessageGroupId is invalid. Reason: \(groupRule)"),
    send(
      "deduplication id", #""MessageDeduplicationId":"d""#,
      invalid: "Value d for parameter MessageDeduplicationId is invalid. Reason: The request "
        + "includes a parameter that is not valid for this queue type."),
    send(
      "other system attribute",
      #""MessageSystemAttributes":{"SenderId":{"DataType":"String","StringValue":"x"}}"#,
      invalid: "Message system attribute name 'SenderId' is invalid."),
  ]

  static let characters: [Refusal] = [
    "\\u0000", "\\u0008", "\\u0013", "\\uffff", "\\ufffe", "\\ud800", "a\\udc00b",
  ].map {
    Refusal(
      "body \($0)", "SendMessage", #"{"QueueUrl":"$Q","MessageBody":"\#($0)"}"#, 400,
      "com.amazonaws.sqs#InvalidMessageContents", "InvalidMessageContents",
      "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
        + "#xE000 to #xFFFD | #x10000 to #x10FFFF")
  }

  static let attributes: [Refusal] =
    [
      attribute(
        "eleven",
        (0..<11).map { #""a\#($0)":{"DataType":"String","StringValue":"x"}"# }
          .joined(separator: ","),
        invalid: "Number of message attributes [11] exceeds the allowed maximum [10]."),
      attribute(
        "empty string", #""a":{"DataType":"String","StringValue":""}"#,
        invalid: "Message (user) attribute 'a' must contain a non-empty value of type 'String'."),
      attribute(
        "empty binary", #""a":{"DataType":"Binary.x"}"#,
        invalid: "Message (user) attribute 'a' must contain a non-empty value of type 'Binary.x'."),
      attribute(
        "no number", #""a":{"DataType":"Number","StringValue":"x"}"#,
        invalid: "Can't cast the value of message (user) attribute 'a' to a number."),
      attribute(
        "long name",
        #""\#(String(repeating: "a", count: 257))":{"DataType":"String","StringValue":"x"}"#,
        invalid: "Message (user) attribute names must be shorter than 256 Bytes"),
      attribute(
        "empty name", #""":{"DataType":"String","StringValue":"x"}"#, invalid: nameRule),
      attribute(
        "null value", #""a":null"#,
        invalid:
          "The message (user) attribute 'a' must contain a non-empty message attribute value."),
      attribute(
        "empty value", #""a":{}"#,
        invalid:
          "The message (user) attribute 'a' must contain a non-empty message attribute value."),
      attribute(
        "no type", #""a":{"StringValue":"x"}"#,
        invalid:
          "The message (user) attribute 'a' must contain a non-empty message attribute type."),
      attribute(
        "bad type", #""a":{"DataType":"string","StringValue":"x"}"#,
        invalid: "The type of message (user) attribute 'a' is invalid. You must use only the "
          + "following supported type prefixes: Binary, Number, String."),
      attribute(
        "long type",
        #""a":{"DataType":"String.\#(String(repeating: "t", count: 249))","StringValue":"x"}"#,
        invalid: "Message (user) attribute types must be shorter than 256 Bytes"),
      attribute(
        "wrong field for binary", #""a":{"DataType":"Binary","StringValue":"x"}"#,
        invalid: "The message (user) attribute 'a' with type 'Binary' must use field 'Binary'."),
      attribute(
        "wrong field for string", #""a":{"DataType":"String","BinaryValue":"eA=="}"#,
        invalid: "The message (user) attribute 'a' with type 'String' must use field 'String'."),
      attribute(
        "both values", #""a":{"DataType":"String","StringValue":"x","BinaryValue":"eA=="}"#,
        invalid: "Message (user) attribute 'a' must have a single value."),
      Refusal(
        "list values", "SendMessage",
        #"{"QueueUrl":"$Q","MessageBody":"x","MessageAttributes":{"a":{"DataType":"String","#
          + #""StringListValues":["x"]}}}"#, 400, "com.amazonaws.sqs#UnsupportedOperation",
        "AWS.SimpleQueueService.UnsupportedOperation",
        "Message attribute list values in SendMessage operation are not supported."),
      Refusal(
        "bad base64", "SendMessage",
        #"{"QueueUrl":"$Q","MessageBody":"x","MessageAttributes":{"a":{"BinaryValue":"*"}}}"#,
        malformed: nil),
    ]
    + ["a!", "\\\"", "§", "(", "?", "a b", "\\ud800"].map {
      attribute(
        "name \($0)", #""\#($0)":{"DataType":"String","StringValue":"x"}"#, invalid: nameRule)
    }
    + ["AWS.a", "aws.a", "Amazon.a", "AMAZON.b", ".a", "a."].map {
      attribute(
        "name \($0)", #""\#($0)":{"DataType":"String","StringValue":"x"}"#, invalid: reservedRule)
    }
    + [
      attribute(
        "name a..b", #""a..b":{"DataType":"String","StringValue":"x"}"#,
        invalid: "Message (user) attribute name must not have successive '.' characters.")
    ]

  static let receives: [Refusal] =
    [
      ("MaxNumberOfMessages", [0, 11, -1], "Must be between 1 and 10, if provided."),
      ("WaitTimeSeconds", [-1, 21], "Must be >= 0 and <= 20, if provided."),
      ("VisibilityTimeout", [-1, 43_201], "Must be >= 0 and <= 43200, if provided."),
    ].flatMap { name, values, reason in
      values.map {
        Refusal(
          "\(name) \($0)", "ReceiveMessage", #"{"QueueUrl":"$Q","\#(name)":\#($0)}"#,
          invalid: "Value \($0) for parameter \(name) is invalid. Reason: \(reason)")
      }
    } + [
      Refusal(
        "unknown name", "ReceiveMessage", #"{"QueueUrl":"$Q","AttributeNames":["x"]}"#, 400,
        "com.amazonaws.sqs#InvalidAttributeName", "InvalidAttributeName", "Unknown Attribute x."),
      Refusal(
        "attempt id", "ReceiveMessage", #"{"QueueUrl":"$Q","ReceiveRequestAttemptId":"a"}"#,
        invalid: "Value a for parameter ReceiveRequestAttemptId is invalid. Reason: The request "
          + "include parameter that is not valid for this queue type."),
    ]

  static let handles: [Refusal] = [
    Refusal("no handle", "DeleteMessage", #"{"QueueUrl":"$Q"}"#, missing: "ReceiptHandle"),
    Refusal(
      "bad handle", "DeleteMessage", #"{"QueueUrl":"$Q","ReceiptHandle":"x"}"#, 404,
      "com.amazonaws.sqs#ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid",
      "The input receipt handle \"x\" is not a valid receipt handle."),
    Refusal(
      "no handle", "ChangeMessageVisibility", #"{"QueueUrl":"$Q"}"#, missing: "ReceiptHandle"),
    Refusal(
      "no timeout", "ChangeMessageVisibility", #"{"QueueUrl":"$Q","ReceiptHandle":"x"}"#,
      missing: "VisibilityTimeout"),
    Refusal(
      "range before handle", "ChangeMessageVisibility",
      #"{"QueueUrl":"$Q","ReceiptHandle":"x","VisibilityTimeout":43201}"#,
      invalid: "Value 43201 for parameter VisibilityTimeout is invalid. Reason: Must be between "
        + "0 and 43200."),
    Refusal(
      "bad handle", "ChangeMessageVisibility",
      #"{"QueueUrl":"$Q","ReceiptHandle":"x","VisibilityTimeout":1}"#, 404,
      "com.amazonaws.sqs#ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid",
      "The input receipt handle \"x\" is not a valid receipt handle."),
  ]

  static let batches: [Refusal] = [
    ("SendMessageBatch", "SendMessageBatchRequestEntry"),
    ("DeleteMessageBatch", "DeleteMessageBatchRequestEntry"),
    ("ChangeMessageVisibilityBatch", "ChangeMessageVisibilityBatchRequestEntry"),
  ].flatMap { action, shape in
    func row(_ entries: String, _ type: String, _ message: String) -> Refusal {
      Refusal(
        "\(action) \(type)", action, #"{"QueueUrl":"$Q","Entries":\#(entries)}"#, 400,
        "com.amazonaws.sqs#" + type, "AWS.SimpleQueueService." + type, message)
    }
    let eleven = (0..<11).map { #"{"Id":"\#($0)"}"# }.joined(separator: ",")
    return [
      row("[]", "EmptyBatchRequest", "There should be at least one \(shape) in the request."),
      row("null", "EmptyBatchRequest", "There should be at least one \(shape) in the request."),
      row(
        "[\(eleven)]", "TooManyEntriesInBatchRequest",
        "Maximum number of entries per request are 10. You have sent 11."),
      Refusal(
        "\(action) no id", action, #"{"QueueUrl":"$Q","Entries":[{"Id":"a"},{}]}"#,
        missing: "\(shape).2.Id"),
      row(#"[{"Id":""}]"#, "InvalidBatchEntryId", batchIDRule),
      row(#"[{"Id":"a b"},{"Id":"a b"}]"#, "InvalidBatchEntryId", batchIDRule),
      row(#"[{"Id":"a"},{"Id":"a"}]"#, "BatchEntryIdsNotDistinct", "Id a repeated."),
      Refusal(
        "\(action) entry of a wrong type", action, #"{"QueueUrl":"$Q","Entries":["x"]}"#,
        malformed: "Unrecognized collection type class java.lang.String"),
    ]
  }

  @Test func everyRuleHasItsCodeAndText() async throws {
    try await ServiceFixture.runWithQueue(#"{"MaximumMessageSize":"1024"}"#) { fixture in
      for refusal in Self.sends + Self.characters + Self.attributes { await refusal.check(fixture) }
      for refusal in Self.receives + Self.handles + Self.batches { await refusal.check(fixture) }
      #expect(await fixture.receive().isEmpty)
    }
  }
}
